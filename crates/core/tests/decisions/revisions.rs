//! Which revision a service runs when what it names, or was taken back to, is not known.

use roadstead_core::model::{
    name::RevisionId,
    spec::service::TaskDefinitionRef,
    state::{Change, Pin, Revision},
};

use super::story::{Story, one_container, web};

fn id(number: u32) -> RevisionId {
    RevisionId { family: "web".into(), number }
}

#[test]
fn a_service_that_names_what_is_not_known_waits_visibly() {
    for (named, words) in [
        ("web:1", None),
        ("web:2", Some("the content of web:2 is not known any more; name a newer revision")),
        ("web:9", Some("there is no revision web:9")),
    ] {
        let mut story = Story::begin(web(1), one_container());
        story.settle(&[]);
        // Known from containers of before the database was lost.
        story.go_on_with(|state| {
            let revision = state.revision(&id(1)).unwrap().clone();
            let stub = Revision { id: id(2), hash: "other".into(), spec: None, ..revision };
            state.apply(&Change::Revision(stub));
        });
        story.desired.services.get_mut("web").unwrap().spec.task_definition = TaskDefinitionRef::Named(named.into());
        story.tell();
        story.decide(1_000, &[]);
        let waiting = story.waiting();
        assert_eq!(words.is_some_and(|words| waiting.contains(words)), words.is_some(), "{named}: {waiting}");
        assert_eq!(story.running(), 1, "what runs goes on");
    }
}

#[test]
fn a_service_is_taken_back_only_to_what_is_known() {
    let mut story = Story::begin(web(1), one_container());
    story.settle(&[]);
    story.go_on_with(|state| {
        let stub = Revision { id: id(2), hash: "other".into(), spec: None, ..state.revision(&id(1)).unwrap().clone() };
        state.apply(&Change::Revision(stub));
        // With its newest number again.
        let newest = Revision { id: id(3), ..state.revision(&id(1)).unwrap().clone() };
        state.apply(&Change::Revision(newest));
        let record = state.services.get_mut("web").unwrap();
        let reason = "a person said so".to_owned();
        record.pin = Some(Pin { instead_of: id(3), revision: id(2), reason });
    });
    story.decide(1_000, &[]);
    let primary = story.state().services["web"].deployments[0].revision.clone();
    assert_eq!(primary, id(3), "what the manifests ask for");
}
