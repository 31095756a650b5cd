//! `audit prune`: whole days, and never behind a gateway's back.

use std::fs;

use rcgen::{KeyPair, PKCS_ED25519};

use crate::{
    log::Log,
    process_support::{stderr, stdout},
    traffic::{Busy, audit},
};

const DAYS: [&str; 3] = ["2020-03-01", "2020-03-02", "2020-03-03"];

fn old(key: Option<&str>) -> Log {
    let mut log = Log::with_key(key);
    for day in DAYS {
        log.write(day, 5);
    }
    log.close();
    log
}

fn days(log: &Log) -> Vec<bool> {
    DAYS.iter().map(|day| log.folder().join(format!("{day}.sqlite")).exists()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_days_are_deleted_but_for_the_last_and_the_rest_is_still_proved() {
    let log = old(None);

    let asked = audit(&["prune", "--older-than", "90d", "--dry-run"], log.folder()).await;
    assert_eq!(asked.status.code(), Some(0), "{}", stderr(&asked));
    assert!(
        stdout(&asked).starts_with("2020-03-01  5 records\n2020-03-02  5 records\n2 days would")
    );
    assert_eq!(days(&log), [true, true, true]);
    let young = audit(&["prune", "--older-than", "36500d"], log.folder()).await;
    assert!(stdout(&young).starts_with("0 days deleted"), "{}", stdout(&young));

    let done = audit(&["prune", "--older-than", "90d"], log.folder()).await;

    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(stdout(&done).contains("2 days deleted"), "{}", stdout(&done));
    assert_eq!(days(&log), [false, false, true]);
    let verified = audit(&["verify"], log.folder()).await;
    assert_eq!(verified.status.code(), Some(0), "{}", stderr(&verified));
    assert!(stdout(&verified).contains("5, number 11 to 15"), "{}", stdout(&verified));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_from_a_signed_log_is_signed_too() {
    let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let log = old(Some(&pair.serialize_pem()));
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key.pem");
    fs::write(&key, pair.serialize_pem()).expect("a file");
    let key = key.to_str().expect("text");

    let unsigned = audit(&["prune", "--older-than", "90d"], log.folder()).await;
    assert_eq!(unsigned.status.code(), Some(2));
    assert!(stderr(&unsigned).contains("--key PEM"), "{}", stderr(&unsigned));
    assert_eq!(days(&log), [true, true, true]);

    let signed = audit(&["prune", "--older-than", "90d", "--key", key], log.folder()).await;

    assert_eq!(signed.status.code(), Some(0), "{}", stderr(&signed));
    let verified = audit(&["verify", "--key", key], log.folder()).await;
    assert_eq!(verified.status.code(), Some(0), "{}", stderr(&verified));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gateway_is_left_alone() {
    let busy = Busy::after_traffic().await;

    let refused = busy.audit(&["prune", "--older-than", "1s"]).await;
    let asked = busy.audit(&["prune", "--older-than", "1s", "--dry-run"]).await;

    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("a gateway is running"), "{}", stderr(&refused));
    assert!(stdout(&asked).starts_with("0 days would be deleted"), "{}", stdout(&asked));
}
