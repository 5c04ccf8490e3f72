//! Addresses of the task network: exclusive, and from where the task may have one.

use std::collections::BTreeSet;

use super::*;

fn addresses(placer: &mut Placer<'_>, ask: &Ask, count: u64) -> Vec<Result<(HostName, Ipv4Addr), String>> {
    let place = |nth| {
        let placement = placer.place(&Request { nth, ..ask.request() }).map_err(|why| why.to_string())?;
        Ok((placement.host, placement.address.unwrap().1))
    };
    (0..count).map(place).collect()
}

#[test]
fn each_task_has_an_address_of_its_own_until_the_slice_is_full() {
    let hosts = hosts(&["a slice=one@10.0.0.0/29", "b slice=one@10.0.0.8/29"]);
    let mut placer = placer(&hosts, &tasks(&["old@a @10.0.0.3 stopping"]));
    let given = addresses(&mut placer, &ask("web subnets=one"), 10);
    let good: BTreeSet<(HostName, Ipv4Addr)> = given.iter().filter_map(|it| it.clone().ok()).collect();
    let tasks_of = |host: &str, last: &[u8]| {
        last.iter().map(|last| (HostName::from(host), Ipv4Addr::new(10, 0, 0, *last))).collect::<BTreeSet<_>>()
    };
    // Not the network's, the host's, the broadcast's, and not what a task that stops still has.
    let want = &tasks_of("a", &[2, 4, 5, 6]) | &tasks_of("b", &[10, 11, 12, 13, 14]);
    assert_eq!(good, want);
    assert_eq!(given[9], Err("0/2 hosts fit: 2 have no address left in the task's subnets".to_owned()));
    assert_eq!(placer.place(&ask("web subnets=one").request()).unwrap_err().failure_reason(), "RESOURCE:ENI");
}

#[test]
fn an_address_is_free_again_when_its_task_is_over() {
    let hosts = hosts(&["a slice=one@10.0.0.0/29"]);
    let before = tasks(&["old@a @10.0.0.3"]);
    let mut placer = placer(&hosts, &before);
    assert_eq!(
        addresses(&mut placer, &ask("web subnets=one"), 5)[4].clone().unwrap_err().split(':').next(),
        Some("0/1 hosts fit")
    );
    placer.release(&before[0].placed());
    let given = addresses(&mut placer, &ask("web subnets=one"), 1);
    assert_eq!(given[0], Ok(("a".into(), Ipv4Addr::new(10, 0, 0, 3))));
}

#[test]
fn what_was_just_given_back_is_not_given_out_first() {
    let hosts = hosts(&["a slice=one@10.0.0.0/24"]);
    let mut placer = placer(&hosts, &[]);
    let given = addresses(&mut placer, &ask("web subnets=one"), 20);
    let addresses: BTreeSet<Ipv4Addr> = given.into_iter().map(|it| it.unwrap().1).collect();
    let in_a_row = addresses.iter().zip(addresses.iter().skip(1)).all(|(a, b)| u32::from(*a) + 1 == u32::from(*b));
    assert!(!in_a_row, "{addresses:?}");
}

#[test]
fn hosts_without_a_part_of_the_network_say_why() {
    for (host, want) in [
        ("a", "0/1 hosts fit: 1 is in no zone of the task's subnets"),
        ("a slice=two@10.0.0.0/29", "0/1 hosts fit: 1 is in no zone of the task's subnets"),
        ("a slice=one@10.0.0.0/29 unready", "0/1 hosts fit: 1 has no task network ready"),
    ] {
        let hosts = hosts(&[host]);
        assert_eq!(outcome(placer(&hosts, &[]).place(&ask("web subnets=one").request())), want, "{host}");
        assert_eq!(outcome(placer(&hosts, &[]).place(&ask("web").request())), "a", "no address is wanted");
    }
}

#[test]
fn the_slice_with_the_most_free_addresses_is_taken() {
    for (host, held, want) in [
        ("a slice=one@10.0.0.0/29 slice=two@10.0.1.0/28", "old@a @10.0.1.3", "two"),
        ("a slice=one@10.0.0.0/28 slice=two@10.0.1.0/29", "old@a @10.0.0.3", "one"),
        ("a slice=one@10.0.0.0/29 slice=two@10.0.1.0/29", "old@a @10.0.0.3", "two"),
        ("a slice=one@10.0.0.0/29 slice=two@10.0.1.0/29", "old@a @10.0.1.3", "one"),
        ("a slice=one@10.0.0.0/29 slice=two@10.0.1.0/29", "old@a @10.0.2.3", "one"),
    ] {
        let hosts = hosts(&[host]);
        let mut placer = placer(&hosts, &tasks(&[held]));
        let placement = placer.place(&ask("web subnets=one,two").request()).unwrap();
        assert_eq!(placement.address.unwrap().0.as_str(), want, "{host} {held}");
    }
}

#[test]
fn an_address_that_is_held_elsewhere_is_given_to_nobody() {
    let hosts = hosts(&["a slice=one@10.0.0.0/29", "b"]);
    let held = Ipv4Addr::new(10, 0, 0, 3);
    // On a host that is not declared any more, and on one that had this slice before.
    for host in ["gone", "b"] {
        let with_task = placer(&hosts, &tasks(&[&format!("old@{host} @10.0.0.3")]));
        let mut with_rest = placer(&hosts, &[]);
        with_rest.hold(&host.into(), held);
        for mut placer in [with_task, with_rest] {
            let given = addresses(&mut placer, &ask("web subnets=one"), 5);
            let good: BTreeSet<Ipv4Addr> = given.into_iter().filter_map(|it| Some(it.ok()?.1)).collect();
            assert!(good.len() == 4 && !good.contains(&held), "{host}: {good:?}");
        }
    }
}
