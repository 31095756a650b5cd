//! `audit query`: every filter, pages, and what people see.

use serde_json::Value;

use crate::{
    process_support::{run, stderr, stdout},
    traffic::{Busy, audit, lines},
};

fn status(record: &Value, range: std::ops::RangeInclusive<u64>) -> bool {
    record["status"].as_u64().is_some_and(|status| range.contains(&status))
}

/// Flags, and which of all records fit them.
type Case = (&'static [&'static str], fn(&Value) -> bool);

const CASES: &[Case] = &[
    (&[], |_| true),
    (&["--caller", "billing"], |it| it["caller"] == "billing"),
    (&["--identity", "main"], |it| it["identity"] == "main"),
    (&["--route", "/api/v1/project/insert"], |it| it["route"] == "/api/v1/project/insert"),
    (&["--route", "/api/v1/project/*"], |it| {
        it["route"].as_str().is_some_and(|route| route.starts_with("/api/v1/project/"))
    }),
    (&["--status", "404"], |it| status(it, 404..=404)),
    (&["--status", "4xx"], |it| status(it, 400..=499)),
    (&["--status", "2xx"], |it| status(it, 200..=299)),
    (&["--code", "NOT_FOUND"], |it| it["code"] == "NOT_FOUND"),
    (&["--outcome", "ok"], |it| it["outcome"] == "ok"),
    (&["--outcome", "denied"], |it| it["outcome"] == "denied"),
    (&["--outcome", "limited"], |it| it["outcome"] == "limited"),
    (&["--outcome", "unauthenticated"], |it| it["outcome"] == "unauthenticated"),
    (&["--outcome", "upstream_error"], |it| it["outcome"] == "upstream_error"),
    (&["--request-id", "write-1"], |it| it["request_id"] == "write-1"),
    (&["--since", "1h"], |_| true),
    (&["--until", "1h"], |_| false),
    (&["--since", "2199-01-01"], |_| false),
    (&["--caller", "billing", "--status", "404"], |it| {
        it["caller"] == "billing" && status(it, 404..=404)
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_finds_what_fits_and_nothing_else() {
    let busy = Busy::after_traffic().await;
    let everything = busy.records(&["--intents"]).await;

    for (flags, fits) in CASES {
        for intents in [false, true] {
            let shown = |it: &&Value| intents || it["phase"] != "intent";
            let expected: Vec<_> = everything.iter().filter(|it| fits(it)).filter(shown).collect();
            let intents = intents.then_some("--intents");

            let found = busy.records(&[flags, intents.as_slice()].concat()).await;

            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{flags:?} {intents:?}");
        }
    }
    let intents = everything.iter().filter(|it| it["phase"] == "intent").count();
    assert!(intents >= 3, "writes leave intents: {intents}");
    for outcome in ["ok", "denied", "limited", "unauthenticated", "upstream_error"] {
        assert!(everything.iter().any(|it| it["outcome"] == outcome), "{outcome}");
    }
    // A time is the first that `since` finds, and the first that `until` does not.
    let middle = everything[everything.len() / 2]["time"].as_str().expect("a time");
    for (flag, later) in [("--since", true), ("--until", false)] {
        let found = busy.records(&["--intents", flag, middle]).await;
        let fits = |it: &&Value| (it["time"].as_str() >= Some(middle)) == later;
        let expected: Vec<_> = everything.iter().filter(fits).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{flag} {middle}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_every_record_once() {
    let busy = Busy::after_traffic().await;
    let everything = busy.records(&["--intents"]).await;
    let (mut pages, mut before) = (Vec::new(), None::<String>);

    loop {
        let mut flags = vec!["query", "--json", "--intents", "--limit", "7"];
        flags.extend(before.iter().flat_map(|before| ["--before", before]));
        let page = busy.audit(&flags).await;
        let said = stderr(&page).to_owned();
        pages.push(lines(&page));
        let Some((_, next)) = said.split_once("--before ") else { break };
        before = Some(next.trim().to_owned());
    }

    assert!(pages.len() > 3, "{}", pages.len());
    assert_eq!(pages.concat(), everything);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_a_table_and_colour_if_they_want() {
    let busy = Busy::after_traffic().await;

    let table = busy.audit(&["query", "--caller", "reports"]).await;
    let coloured = busy.audit(&["query", "--color", "always", "--limit", "5"]).await;

    let text = stdout(&table);
    let (head, rows) = text.split_once('\n').expect("a head");
    assert!(head.starts_with("WHEN ") && head.ends_with("NOTE"), "{head}");
    let call = head.find("CALL ").expect("a column");
    assert_eq!(rows.lines().count(), 6, "{text}");
    for row in rows.lines() {
        assert!(row.starts_with("20") && row.contains("Z  reports "), "{row}");
        assert!(["POST /api/v1", "DELETE /api/v1"].iter().any(|it| row[call..].starts_with(it)));
    }
    assert!(
        rows.contains("  denied ") && rows.contains("callers.reports.deny: DELETE *"),
        "{rows}"
    );
    assert!(!text.contains('\u{1b}') && stdout(&coloured).contains("\u{1b}[3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_found_is_said_and_no_failure() {
    let busy = Busy::idle().await;

    let output = busy.audit(&["query", "--caller", "nobody"]).await;

    assert_eq!((output.status.code(), stdout(&output)), (Some(0), ""));
    assert_eq!(stderr(&output), "no record fits\n");
}

#[tokio::test]
async fn what_cannot_be_answered_has_an_exit_code_and_a_sentence() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = folder.path().join("nowhere");

    for (arguments, code, sentence) in [
        (&["query", "--status", "40x"][..], 2, "--status cannot be \"40x\": expected 404, or 4xx"),
        (&["query", "--since", "yesterday"], 2, "expected a time such as 2h (ago), 2026-11-26"),
        (&["query", "--outcome", "fine"], 2, "upstream_error"),
        (&["query", "--limit", "0"], 2, "--limit"),
        (&["tail", "--until", "x"], 2, "--until cannot be \"x\""),
        (&["export", "--status", "x"], 2, "--status cannot be \"x\""),
        (&["export", "--format", "xls"], 2, "parquet"),
        (&["verify", "--expect", "12"], 2, "expected SEQ:HASH"),
        (&["verify", "--key", "/no/such/key"], 2, "--key: cannot read /no/such/key"),
        (&["prune"], 2, "--older-than 90d"),
        (&["query"], 74, "there is no audit log in"),
        (&["export"], 74, "there is no audit log in"),
        (&["verify"], 74, "there is no audit log in"),
        (&["prune", "--older-than", "90d"], 74, "there is no audit log in"),
    ] {
        let output = audit(arguments, &nowhere).await;

        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
        assert!(stderr(&output).contains(sentence), "{arguments:?}: {}", stderr(&output));
    }
    // Nobody listens there.
    let central = "postgres://127.0.0.1:1/audit";
    for (verb, code, sentence) in [
        ("query", 74, "the central audit store cannot be read"),
        ("export", 74, "the central audit store cannot be read"),
        ("verify", 74, "the central audit store cannot be read"),
        ("tail", 2, "--store PATH"),
    ] {
        let output = run(&["audit", verb, "--store", central], &[]).await;
        assert_eq!(output.status.code(), Some(code), "{verb}");
        assert!(stderr(&output).contains(sentence), "{}", stderr(&output));
    }
    let unconfigured = run(&["audit", "query"], &[]).await;
    assert_eq!(unconfigured.status.code(), Some(78));
    assert!(stderr(&unconfigured).contains("--store PATH does too"), "{}", stderr(&unconfigured));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_place_it_is_the_configured_log() {
    let busy = Busy::after_traffic().await;
    let file = busy.file("gateway.toml");
    let environment = [("AMOVE_API_TOKEN", "t0ken")];
    let query = ["audit", "query", "--json", "--config", &file];

    let output = run(&query, &environment).await;

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(lines(&output), busy.records(&[]).await);
}
