//! A gateway before a real server, spoken to in plain HTTP.

mod batches;
mod bounds;
mod described;
mod health;
mod http;
mod pages;
mod seeing;
mod serving;
mod site;
mod values;
