//! What is run in Redis.

use std::sync::LazyLock;

use redis::Script;

macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| Script::new(concat!(include_str!("prelude.lua"), include_str!($file))))
    };
}

pub(super) static LOOK: LazyLock<Script> = script!("look.lua");
pub(super) static CLAIM: LazyLock<Script> = script!("claim.lua");
pub(super) static RENEW: LazyLock<Script> = script!("renew.lua");
pub(super) static PUT: LazyLock<Script> = script!("put.lua");
pub(super) static GIVE_BACK: LazyLock<Script> = script!("give_back.lua");
pub(super) static TAKE_STEP: LazyLock<Script> = script!("take_step.lua");
pub(super) static LEAVE: LazyLock<Script> = script!("leave.lua");
