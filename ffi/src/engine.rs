//! What several sessions of a process share.

use std::mem::MaybeUninit;

use vfio_ferry::{Engine, EngineOptions};

use crate::failure::{Failure, guarded, guarded_or};
use crate::options::{self, set, vferry_options};
use crate::raw::{self, Handle};
use crate::status::vferry_status;

/// Workers and memory for buffers that several sessions share, as where a VMM has a session for each
/// device. Without one each session has its own. Any thread may use it. Since version 6.
///
/// It also keeps for ten minutes what sources over TCP have found out about the paths to other hosts,
/// and about compression: the next source begins with that in place of a guess, and measures all the
/// same.
///
/// Made by `vferry_engine_new`, freed by `vferry_engine_free`, at any time: sessions keep what they need
/// of it.
pub struct vferry_engine {
    _opaque: [u8; 0],
}

impl Handle for vferry_engine {
    type Inner = Engine;
    const WHAT: &'static str = "engine";
}

/// Makes an engine, whose workers are started here. Their number is that of `options`
/// (`vferry_options_set_workers`), and what is done on each thread first
/// (`vferry_options_set_thread_start`); NULL for the defaults. `memory_bytes` is most memory for the
/// buffers of all sessions together, up to 16 GiB; 0 for the default, 128 MiB. Since version 6.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_engine_new(
    engine: Option<&mut MaybeUninit<*mut vferry_engine>>,
    options: Option<&vferry_options>,
    memory_bytes: usize,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(engine, "engine")?;
        let from = options::copy(options)?;
        let mut wanted = EngineOptions {
            workers: from.workers,
            thread_start: from.thread_start,
            ..EngineOptions::default()
        };
        if memory_bytes > 0 {
            wanted.memory_bytes = memory_bytes;
        }
        place.write(raw::handle(Engine::new(wanted).map_err(Failure::from)?));
        Ok(())
    })
}

/// Frees an engine and sets the variable to NULL. Its threads end with the last session that has it.
/// Does nothing where it, or `engine`, is NULL. Since version 6.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_engine_free(engine: Option<&mut *mut vferry_engine>) {
    guarded(|| {
        drop(raw::take(engine));
        Ok(())
    });
}

/// Bytes of an engine's memory that no session has; 0 for NULL. Since version 6.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_engine_memory_left(engine: Option<&vferry_engine>) -> u64 {
    guarded_or(0, || raw::inner(engine).map_or(0, |engine| engine.memory_left() as u64))
}

/// What a session shares with others of this process: the engine's workers, in place of its own, and the
/// engine's memory, of which it takes `vferry_options_set_memory_bytes` or what is left; too little is
/// VFERRY_ERR_MEMORY_LIMIT when the session is made. NULL for none. Since version 6.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_options_set_engine(
    options: Option<&mut vferry_options>,
    engine: Option<&vferry_engine>,
) -> vferry_status {
    set(options, |options| {
        options.engine = match engine {
            Some(engine) => Some(raw::inner(Some(engine))?.clone()),
            None => None,
        };
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::{c_int, c_void};
    use std::ptr;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::threads::{vferry_options_set_thread_start, vferry_thread};

    #[test]
    fn an_engine_is_shared_and_freed() {
        let wanted = EngineOptions { memory_bytes: 1 << 20, ..EngineOptions::default() };
        let mut engine: *mut vferry_engine = raw::handle(Engine::new(wanted).expect("threads"));
        let borrowed = raw::tests::borrow(engine).map(|engine| &*engine);
        assert_eq!(vferry_engine_memory_left(borrowed), 1 << 20);
        let handle: *mut vferry_options = raw::handle(std::sync::Mutex::default());
        let mut variable = handle;
        let shared = |options: Option<&mut vferry_options>| {
            options::copy(options.map(|options| &*options)).expect("options").engine.is_some()
        };
        for (engine, expected) in [(borrowed, true), (None, false), (borrowed, true)] {
            let set = vferry_options_set_engine(raw::tests::borrow(handle), engine);
            assert_eq!(
                (set, shared(raw::tests::borrow(handle))),
                (vferry_status::VFERRY_OK, expected)
            );
        }
        vferry_engine_free(Some(&mut engine));
        assert!(engine.is_null() && shared(raw::tests::borrow(handle)), "the options keep it");
        options::vferry_options_free(Some(&mut variable));
        assert_eq!(vferry_engine_memory_left(None), 0);
        vferry_engine_free(None);
    }

    #[test]
    fn what_it_cannot_be_made_of_is_refused() {
        let mut place = MaybeUninit::new(ptr::null_mut());
        let range = vferry_engine_new(Some(&mut place), None, usize::MAX);
        assert_eq!(range, vferry_status::VFERRY_ERR_RANGE);
        assert_eq!(vferry_engine_new(None, None, 0), vferry_status::VFERRY_ERR_NULL);
        assert_eq!(vferry_options_set_engine(None, None), vferry_status::VFERRY_ERR_NULL);
    }

    static STARTED: AtomicU32 = AtomicU32::new(0);

    extern "C" fn counted(_: &vferry_thread, _: *mut c_void) -> c_int {
        STARTED.fetch_add(1, Ordering::Relaxed);
        0
    }

    #[test]
    fn it_is_made_of_what_its_options_say() {
        let mut options: *mut vferry_options = raw::handle(std::sync::Mutex::default());
        let changed = || raw::tests::borrow(options);
        let ok = vferry_status::VFERRY_OK;
        assert_eq!(options::vferry_options_set_workers(changed(), 3), ok);
        let hook = vferry_options_set_thread_start(changed(), Some(counted), ptr::null_mut());
        assert_eq!(hook, ok);
        for (bytes, expected) in [(0, 128 << 20), (1 << 20, 1 << 20)] {
            let before = STARTED.load(Ordering::Relaxed);
            let mut engine =
                raw::tests::made(|place| vferry_engine_new(place, changed().as_deref(), bytes));
            let borrowed = raw::tests::borrow(engine).map(|engine| &*engine);
            assert_eq!(vferry_engine_memory_left(borrowed), expected);
            assert_eq!(raw::inner(borrowed).expect("an engine").workers(), 3);
            assert_eq!(STARTED.load(Ordering::Relaxed) - before, 3);
            vferry_engine_free(Some(&mut engine));
        }
        options::vferry_options_free(Some(&mut options));
    }
}
