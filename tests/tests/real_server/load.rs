//! `pinion bench run` whose run is cut short: the server dies, or somebody presses Ctrl-C. What was
//! counted until then is told in every form, with the reason.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use pinion_tests::process::{Rig, Server, pinion};
use rustix::process::{Pid, Signal, kill_process};

const RECORDS: &str = "recordcount=500";
/// Reads that the server has answered before the run is cut short.
const READS: u64 = 2000;
const LOOK_DELAY: Duration = Duration::from_millis(1);
const FORMS: [&str; 4] = ["json", "csv", "hdr", "html"];

fn target(server: &Server) -> String {
    format!("--target=pinion://{}", server.address())
}

/// Starts a run without end, with every form of report beside the rig's directory, and waits until it
/// is under way.
fn begin(rig: &Rig, server: &Server) -> Child {
    let mut command =
        pinion(&["bench", "run", "-w", "b", "-p", RECORDS, "--seconds", "3600", "--warmup", "0"]);
    command.args(["--connections", "4", "--ycsb", &target(server)]);
    for form in FORMS {
        command.arg(format!("--{form}")).arg(rig.beside(form));
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = command.spawn().expect("the binary was built");
    let client = server.client();
    while Server::storage(&client, "gets_found") < READS {
        thread::sleep(LOOK_DELAY);
    }
    run
}

/// Waits for the end of a run, and looks at what it tells.
fn check(rig: &Rig, run: Child, reason: &str) {
    let output = run.wait_with_output().expect("a child can be waited for");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ended early: ") && said.contains(reason), "{said}");
    let read = |form: &str| fs::read_to_string(rig.beside(form)).expect("every form was written");

    let report: serde_json::Value = serde_json::from_str(&read("json")).expect("a report is JSON");
    assert!(report["ended"].as_str().is_some_and(|why| why.contains(reason)), "{}", report["ended"]);
    let operations = report["operations"].as_u64().expect("a number of operations");
    // Those that are under way when the server is asked are not counted yet.
    assert!(operations >= READS / 2, "{operations}");
    let counted: u64 = ["READ", "UPDATE"].iter().map(|kind| count(&report, kind)).sum();
    assert_eq!(counted, operations);

    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("\n[READ], Operations, {}\n", count(&report, "READ"))), "{text}");
    assert!(text.starts_with("# ") && text.contains(reason), "{text}");
    let (csv, hdr, html) = (read("csv"), read("hdr"), read("html"));
    assert!(csv.starts_with("end_s,") && csv.lines().count() >= 2, "{csv}");
    assert!(hdr.contains("Tag=READ") && hdr.contains("Tag=UPDATE"), "{hdr}");
    assert!(html.contains("Ended early:") && html.ends_with("</html>\n"));
}

fn count(report: &serde_json::Value, kind: &str) -> u64 {
    let kinds = report["kinds"].as_array().expect("a list of kinds");
    let found = kinds.iter().find(|found| found["name"] == kind).expect("both kinds occurred");
    found["ok"].as_u64().expect("a count")
}

fn load(server: &Server) {
    let mut command = pinion(&["bench", "load", "-w", "b", "-p", RECORDS, "--connections", "4"]);
    let output = command.arg(target(server)).output().expect("the binary was built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_server_that_dies_leaves_a_report_of_what_it_did() {
    let rig = Rig::with_shards(1);
    let server = rig.start();
    load(&server);
    let run = begin(&rig, &server);
    server.kill();
    check(&rig, run, "the target closed a connection");
}

#[test]
fn a_run_that_is_interrupted_reports_what_it_has() {
    let rig = Rig::with_shards(1);
    let server = rig.start();
    load(&server);
    let run = begin(&rig, &server);
    kill_process(Pid::from_child(&run), Signal::INT).expect("it runs");
    check(&rig, run, "stopped by a signal");
    server.stop();
}

#[test]
fn files_that_cannot_be_written_take_nothing_from_the_others() {
    let rig = Rig::with_shards(1);
    let server = rig.start();
    let mut command = pinion(&["bench", "load", "-w", "small", "-p", RECORDS, "--connections", "4"]);
    command.arg(target(&server)).arg("--json").arg(Path::new("/nonexistent/report.json"));
    let output = command.arg("--csv").arg(rig.beside("csv")).output().expect("the binary was built");
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.code() == Some(3) && said.contains("/nonexistent/report.json"), "{said}");
    assert!(text.contains("500 operations") && rig.beside("csv").exists(), "{text}");
}
