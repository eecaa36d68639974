//! The list of classes. Here and not beside it: whoever names it has all classes compiled.

use pinion_tests::trials::{CLASSES, MUST_FAIL, PARTS};

#[test]
fn classes_have_one_name_each_and_grow() {
    for class in CLASSES {
        let all = CLASSES.iter().chain(MUST_FAIL).chain(PARTS);
        let namesakes = all.filter(|other| other.name == class.name);
        assert_eq!(namesakes.count(), 1);
        assert!(class.submission <= class.full && class.full <= class.release, "{}", class.name);
    }
}
