//! request ∩ grant ∩ ceiling: what a stage may touch. Pure; decided before anything runs, asked again at every call.

pub mod approve;
pub mod stage_grant;

pub use approve::{ApprovedPlan, approve};
pub use stage_grant::{Decision, DecisionLog, Entry, Granter, StageGrant};
