//! `audit export`: the same rows in every format, and nothing in them that must not be.

use std::{fs, process::Stdio};

use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::Field,
};
use serde_json::Value;

use crate::{
    process_support::{command, stderr, stdout},
    traffic::{Busy, CANARY},
};

/// Rows of texts, the names first.
type Rows = Vec<Vec<String>>;

fn of_ndjson(text: &str) -> Rows {
    let mut rows = Rows::new();
    for line in text.lines() {
        let record: serde_json::Map<String, Value> = serde_json::from_str(line).expect("JSON");
        if rows.is_empty() {
            rows.push(record.keys().cloned().collect());
        }
        let cell = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        rows.push(record.values().map(cell).collect());
    }
    // The map is sorted by name.
    sorted(rows)
}

fn of_csv(bytes: &[u8]) -> Rows {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes);
    let rows = reader.records().map(|row| row.expect("a row"));
    sorted(rows.map(|row| row.iter().map(str::to_owned).collect()).collect())
}

fn of_parquet(path: &str) -> Rows {
    let file = fs::File::open(path).expect("a file");
    let reader = SerializedFileReader::new(file).expect("Parquet");
    let columns = reader.metadata().file_metadata().schema_descr().columns().to_vec();
    let mut rows: Rows = vec![columns.iter().map(|column| column.name().to_owned()).collect()];
    for row in reader.get_row_iter(None).expect("rows") {
        let row = row.expect("a row");
        rows.push(row.get_column_iter().map(|(_, field)| cell(field)).collect());
    }
    sorted(rows)
}

fn cell(field: &Field) -> String {
    match field {
        Field::Null => String::new(),
        Field::Str(text) => text.clone(),
        Field::Bool(value) => value.to_string(),
        Field::Int(value) => value.to_string(),
        Field::Long(value) => value.to_string(),
        Field::TimestampMicros(time) => {
            format!("{:.6}", jiff::Timestamp::from_microsecond(*time).expect("a time"))
        }
        Field::Bytes(bytes) if bytes.len() == 16 => {
            uuid::Uuid::from_slice(bytes.data()).expect("an id").to_string()
        }
        Field::Bytes(bytes) => bytes.data().iter().map(|byte| format!("{byte:02x}")).collect(),
        other => panic!("{other:?}"),
    }
}

/// With the columns in the order of their names.
fn sorted(rows: Rows) -> Rows {
    let mut order: Vec<_> = (0..rows[0].len()).collect();
    order.sort_by_key(|at| rows[0][*at].clone());
    rows.iter().map(|row| order.iter().map(|at| row[*at].clone()).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_formats_have_the_same_rows_and_no_secret() {
    let busy = Busy::after_traffic().await;
    let mut files = Vec::new();
    for format in ["ndjson", "csv", "parquet"] {
        let file = busy.file(&format!("records.{format}"));
        let export = ["export", "--intents", "--format", format, "--output", &file];
        let output = busy.audit(&export).await;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
        assert!(stderr(&output).contains(" records written to "), "{}", stderr(&output));
        assert!(!fs::exists(format!("{file}.part")).expect("a folder"), "{format}");
        files.push(file);
    }
    let bytes = |at: usize| fs::read(&files[at]).expect("a file");
    let ndjson = String::from_utf8(bytes(0)).expect("text");
    let mut newest_first = busy.records(&["--intents"]).await;
    newest_first.reverse();

    let rows = of_ndjson(&ndjson);

    let written: Vec<Value> =
        ndjson.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(written, newest_first);
    assert_eq!(of_csv(&bytes(1)), rows);
    assert_eq!(of_parquet(&files[2]), rows);
    let csv = String::from_utf8(bytes(1)).expect("text");
    assert!(csv.starts_with("seq,phase,id,request_id,time,"), "{csv}");
    assert!(csv.contains(",\"=unknown,\"\"1\"\"\","), "{csv}");
    assert_eq!(csv.matches("\r\n").count(), rows.len());
    for row in rows.iter().flatten() {
        for secret in [CANARY, "eyJ", "Bearer", "amgw_"] {
            assert!(!row.contains(secret), "{secret}: {row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_a_limit_choose_and_standard_output_will_do() {
    let busy = Busy::after_traffic().await;
    let mut denied = busy.records(&["--outcome", "denied"]).await;
    denied.reverse();

    let all = busy.audit(&["export", "--outcome", "denied"]).await;
    let some = busy.audit(&["export", "--outcome", "denied", "--limit", "2", "-o", "-"]).await;
    let none = busy.audit(&["export", "--caller", "nobody", "--format", "csv"]).await;

    assert_eq!(crate::traffic::lines(&all), denied);
    assert_eq!(crate::traffic::lines(&some), denied[..2]);
    assert_eq!(stderr(&all), "");
    assert_eq!(stdout(&none).lines().count(), 1, "{}", stdout(&none));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_leaves_what_was_there() {
    let busy = Busy::after_traffic().await;
    let file = busy.file("records.csv");
    fs::write(&file, "precious").expect("a file");

    let wrong = busy.audit(&["export", "--status", "x", "--output", &file]).await;
    let nowhere = busy.audit(&["export", "--output", "/no/such/folder/records"]).await;
    let full = busy.audit(&["export", "--output", "/dev/full"]).await;

    assert_eq!(wrong.status.code(), Some(2));
    assert_eq!(fs::read_to_string(&file).expect("a file"), "precious");
    for (output, path) in [(nowhere, "/no/such/folder/records"), (full, "/dev/full")] {
        assert_eq!(output.status.code(), Some(74));
        let said = format!("cannot write {path}: ");
        assert!(stderr(&output).contains(&said), "{}", stderr(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_is_not_for_terminals() {
    let busy = Busy::idle().await;
    let gateway = env!("CARGO_BIN_EXE_amove-gateway");
    let store = busy.store.display();
    let export = format!("{gateway} audit export --format parquet --store {store}");

    let shown = std::process::Command::new("script")
        .args(["-qec", &export, "/dev/null"])
        .stdin(Stdio::null())
        .output();

    // Not every machine has a pseudo-terminal to lend.
    let Ok(shown) = shown else { return };
    assert_eq!(shown.status.code(), Some(2));
    assert!(stdout(&shown).contains("--output FILE"), "{}", stdout(&shown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_early_causes_no_panic() {
    let busy = Busy::after_traffic().await;
    let store = busy.store.to_str().expect("text");
    for format in ["ndjson", "csv", "parquet"] {
        let mut child = command(&["audit", "export", "--format", format, "--store", store], &[])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the executable starts");
        drop(child.stdout.take());

        let output = child.wait_with_output().expect("it ends");

        assert_eq!(stderr(&output), "", "{format}");
    }
}
