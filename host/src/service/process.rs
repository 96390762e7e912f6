//! `windlass:process/runner`: native programs, by argument list, outside the sandbox.
