//! What a command has to say, in one place: results go through [`say`] to standard output, remarks
//! through [`note`] to standard error.
//!
//! A reader that has seen enough (`| head -1`) is no failure: the text is for nobody then, but the files
//! that were asked for are still written, and the exit code still tells.

use std::fmt;
use std::io::{self, Write};

/// Writes a result to standard output, at once.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    if let Err(error) = tell(&mut io::stdout().lock(), text) {
        note(format_args!("standard output: {error}\n"));
    }
}

/// Writes a remark to standard error.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    // There is nowhere left to complain.
    drop(tell(&mut io::stderr().lock(), text));
}

/// Whoever has closed a pipe knows it; a full disk behind a redirection is an error.
fn tell(out: &mut impl Write, text: fmt::Arguments<'_>) -> io::Result<()> {
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        told => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is_one() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        tell(&mut writer, format_args!("{}\n", 1)).unwrap();
        let mut read = [0; 2];
        io::Read::read_exact(&mut reader, &mut read).unwrap();
        assert_eq!(&read, b"1\n");
        drop(reader);
        tell(&mut writer, format_args!("nobody reads this")).unwrap();
        let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(tell(&mut full, format_args!("much")).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
