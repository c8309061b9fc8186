//! TLS: honest migrations, peers that are not who they should be, and attackers on the path who see
//! records and not what is in them.

mod attacks;
mod peers;
mod whole;
