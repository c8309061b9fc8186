//! The kernel's sample driver mtty: a PCI serial card of two ports whose state is 96 bytes.

use rustix::io::pwrite;
use std::os::fd::OwnedFd;

use crate::checks::Outcome;
use crate::mdev::Mdev;

/// mtty.c puts region N of the device at N << 40 in its fd, and port N behind BAR N.
const REGION_SHIFT: u32 = 40;
const PORTS: u64 = 2;

/// Registers of a 16550 UART.
const UART_TX: u64 = 0;
const UART_FCR: u64 = 2;
const UART_LCR: u64 = 3;
const UART_SCR: u64 = 7;
/// FCR: FIFO on, both directions cleared.
const FIFO_CLEAR: u8 = 0x07;
/// A FIFO holds 16 bytes; some are left free.
const FIFO_BYTES_MAX: usize = 12;

/// An mtty card and its fd.
#[derive(Debug)]
pub(crate) struct Mtty {
    /// Closed before the device is removed, which waits for it.
    fd: OwnedFd,
    pub(crate) mdev: Mdev,
}

impl Mtty {
    /// Makes one.
    pub(crate) fn create() -> Outcome<Mtty> {
        let mdev = Mdev::create("/sys/class/mtty/mtty", "mtty-2")?;
        let fd = mdev.fd()?;
        Ok(Mtty { fd, mdev })
    }

    /// The device alone, closed, for another process to open.
    pub(crate) fn hand_out(self) -> Mdev {
        drop(self.fd);
        self.mdev.hand_out()
    }

    /// Does what a guest does to a serial card: line settings, a scratch byte, and bytes that wait
    /// in the loop-back FIFO. No two devices look alike afterwards.
    pub(crate) fn scribble(&self, rng: &mut fastrand::Rng) -> Outcome {
        for port in 0..PORTS {
            self.set(port, UART_FCR, FIFO_CLEAR)?;
            self.set(port, UART_LCR, rng.u8(..0x80))?;
            self.set(port, UART_SCR, rng.u8(..))?;
            for _ in 0..rng.usize(4..=FIFO_BYTES_MAX) {
                self.set(port, UART_TX, rng.u8(..))?;
            }
        }
        Ok(())
    }

    fn set(&self, port: u64, register: u64, value: u8) -> Outcome {
        pwrite(&self.fd, &[value], (port << REGION_SHIFT) + register)?;
        Ok(())
    }
}
