//! The engine against a model (`pinion_tests::model`), in the size of a submission, and every
//! history that ever failed.

use std::fs;
use std::path::Path;

use pinion_tests::model::kept_case;
use pinion_tests::trials::Class;

#[test]
fn the_engine_does_what_a_map_does() {
    Class::submit("model");
}

#[test]
fn histories_that_failed_once_do_not_fail_again() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/cases");
    for entry in fs::read_dir(&cases).expect("the directory of cases") {
        let path = entry.expect("an entry of the directory").path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let json = fs::read_to_string(&path).expect("a readable case");
            kept_case(&path.display().to_string(), &json);
        }
    }
}
