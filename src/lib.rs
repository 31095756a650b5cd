//! The one door through which a company's internal services reach the Amove API.

pub mod admin;
pub mod amove;
pub mod app;
pub mod audit;
pub mod caller;
pub mod cli;
pub mod clock;
pub mod config;
pub mod emulator;
pub mod exchange;
pub mod limit;
pub mod message;
pub mod middleware;
pub mod problem;
pub mod server;
pub mod session;
pub mod stack;
pub mod telemetry;
pub mod upstream;
