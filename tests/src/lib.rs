//! Test devices and harnesses.
