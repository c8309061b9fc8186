//! What is promised, against records that are made up.
