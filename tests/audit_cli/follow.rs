//! `audit tail`: what is there, what comes, and how it ends.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Instant,
};

use crate::{
    log::Log,
    process_support::{PATIENCE, Process, command, eventually, stderr},
    traffic::Busy,
};

fn tail(flags: &[&str], store: &std::path::Path) -> Process {
    let store = ["--store", store.to_str().expect("text")];
    Process::start(&[&["audit", "tail"], flags, &store].concat(), &[])
}

fn ids(text: &str) -> Vec<String> {
    let id = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        record["request_id"].as_str().expect("an id").to_owned()
    };
    // The last line may not be whole yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_the_last_and_follows_until_it_is_interrupted() {
    let busy = Busy::idle().await;
    for number in 0..5 {
        busy.get_well(&format!("before-{number}")).await;
    }
    eventually("they are in the log", async || busy.records(&[]).await.len() == 5).await;

    let mut tail = tail(&["--json", "--limit", "3", "--caller", "billing"], &busy.store);
    eventually("the last are shown", async || ids(&tail.stdout()).len() == 3).await;
    let mut expected = vec!["before-2".to_owned(), "before-3".into(), "before-4".into()];
    for number in 0..20 {
        busy.get_well(&format!("after-{number}")).await;
        busy.get("", crate::traffic::USERINFO, "stranger").await;
        expected.push(format!("after-{number}"));
    }
    eventually("those that come are shown", async || ids(&tail.stdout()).len() >= expected.len())
        .await;

    assert_eq!(ids(&tail.stdout()), expected);
    tail.signal("INT");
    assert_eq!(tail.exit_code().await, Some(0));
    assert_eq!(tail.stderr(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_a_log_that_is_not_there_yet() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("later");
    let mut tail = tail(&["--json"], &store);
    eventually("it waits", async || tail.stderr().contains("waiting for it")).await;

    let busy = Busy::at(folder, store).await;
    busy.get_well("first").await;

    eventually("it is shown", async || ids(&tail.stdout()) == ["first"]).await;
    tail.signal("TERM");
    assert_eq!(tail.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_in_the_file_of_the_next_day() {
    let mut log = Log::new();
    log.write("2026-03-01", 3);
    let tail = tail(&["--json", "--limit", "2"], log.folder());
    eventually("the last are shown", async || ids(&tail.stdout()).len() == 2).await;

    log.write("2026-03-01", 2);
    log.write("2026-03-02", 2);
    log.write("2026-03-04", 1);

    eventually("all are shown", async || ids(&tail.stdout()).len() == 7).await;
    let expected = ["r-2", "r-3", "r-4", "r-5", "r-6", "r-7", "r-8"];
    assert_eq!(ids(&tail.stdout()), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_nobody_reads_any_more() {
    let mut log = Log::new();
    log.write("2026-03-01", 3);
    let store = log.folder().to_str().expect("text").to_owned();
    let mut child = command(&["audit", "tail", "--store", &store], &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the executable starts");
    let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut head = String::new();
    reader.read_line(&mut head).expect("a line");

    // Nothing more is written meanwhile.
    drop(reader);

    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("a child").is_none() {
        assert!(Instant::now() < deadline, "it goes on");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let output = child.wait_with_output().expect("it has ended");
    assert!(head.starts_with("WHEN "), "{head}");
    assert_eq!(stderr(&output), "");
}
