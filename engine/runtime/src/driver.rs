//! The task that drives a core's ring, and how a core sleeps.
//!
//! The driver is an ordinary task of the Foreground class. While completions come it takes turns
//! with the other tasks: submit and reap, let everybody run who was woken, again. It yields its
//! whole task queue, so that the classes share the core by their weights at every turn. With nothing to
//! do it does one of three things:
//!
//! * while some task of this core has yielded, it waits to be kicked: that task runs again by itself and kicks the driver
//!   then. The driver must not sleep meanwhile: glommio, which would have to wake it, does not look
//!   at its own I/O while tasks are runnable;
//! * while a write to a log is under way and the last rest was short, it looks again (see `rest`);
//! * otherwise it sleeps: it announces that on the doorbell, has the ring signal the eventfd, looks
//!   once more at everything that could have happened before these two took effect, and waits.
//!   A second task, the watcher, always has a read of the eventfd under way through glommio; that
//!   read is what glommio sleeps on. The watcher's read is never dropped or raced.
//!
//! Everything that makes work for the driver on its own core (an operation started, a task that
//! goes on after a yield) kicks it. So there is no tick, and an idle core uses no CPU.

use std::cell::Cell;
use std::future::poll_fn;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;

use glommio::io::BufferedFile;

use crate::env_impl::Node;
use crate::runtime::AbortOnPanic;

/// Drives the ring until the core is stopped.
pub(crate) async fn drive<M: Send + 'static>(node: Rc<Node<M>>) {
    let _guard = AbortOnPanic;
    let core = &node.core;
    while !core.is_stopping() {
        let busy = core.turn();
        if node.collect_mail() || busy {
            glommio::executor().yield_task_queue_now().await;
        } else if core.has_yielding() {
            poll_fn(|context| core.poll_kick(context)).await;
        } else if core.lingers() {
            glommio::executor().yield_task_queue_now().await;
        } else if prepare_sleep(&node) {
            poll_fn(|context| core.poll_kick(context)).await;
            end_sleep(&node);
        } else {
            glommio::executor().yield_task_queue_now().await;
        }
    }
}

/// Announces sleep to other cores and to the kernel, then looks at all sources once more. False,
/// with everything taken back: there is something to do.
fn prepare_sleep<M: Send + 'static>(node: &Node<M>) -> bool {
    node.doorbell().announce_sleep();
    if node.core.prepare_sleep() && !node.collect_mail() {
        return true;
    }
    end_sleep(node);
    false
}

fn end_sleep<M: Send + 'static>(node: &Node<M>) {
    node.core.end_sleep();
    node.doorbell().end_sleep();
}

/// Reads the eventfd for ever and kicks the driver for every signal.
pub(crate) async fn watch<M: Send + 'static>(node: Rc<Node<M>>, ended: Rc<Cell<bool>>) {
    let eventfd = match node.doorbell().eventfd().try_clone_to_owned() {
        Ok(eventfd) => eventfd,
        Err(error) => panic!("no descriptor left to wake the core with: {error}"),
    };
    let eventfd = own_as_glommio_file(eventfd);
    while !ended.get() {
        if let Err(error) = eventfd.read_at(0, size_of::<u64>()).await {
            panic!("reading the eventfd that wakes the core failed: {error}");
        }
        node.core.signalled();
    }
    drop(eventfd.close().await);
}

#[expect(unsafe_code, reason = "glommio takes over descriptors only this way")]
fn own_as_glommio_file(eventfd: std::os::fd::OwnedFd) -> BufferedFile {
    // SAFETY: the descriptor is owned, and its ownership goes to the file.
    unsafe { BufferedFile::from_raw_fd(eventfd.into_raw_fd()) }
}
