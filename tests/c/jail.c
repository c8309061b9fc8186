/*
 * The library's threads in a VMM's jail: the VMM's hook sets a seccomp filter
 * on each, of the calls that the library names. The filter traps, as VMMs' do
 * that log what was refused; here the handler counts, and answers ENOSYS. No
 * session meets it on either backend; and where io_uring is what it refuses,
 * the session runs on plain system calls.
 */
#include "pair.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#define ANSWER(context) ((context)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#define ANSWER(context) ((context)->uc_mcontext.regs[0])
#endif

#define CALLS_MAX 128

static volatile sig_atomic_t traps, trapped_call;

static void on_trap(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    traps++;
    trapped_call = info->si_syscall;
    ANSWER((ucontext_t *)context) = -ENOSYS;
}

/* These calls, or (refuse) all but these. Traps for the others. */
static int set_filter(const int64_t *calls, size_t count, int refuse)
{
    struct sock_filter code[CALLS_MAX + 8];
    size_t at = 0;
    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < count; i++)
        code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[i],
                                                  (uint8_t)(count - i), 0);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, refuse ? SECCOMP_RET_ALLOW : SECCOMP_RET_TRAP);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, refuse ? SECCOMP_RET_TRAP : SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = (unsigned short)at, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        return errno;
    return 0;
}

struct seen {
    pthread_mutex_t lock;
    int threads[VFERRY_THREAD_WORKER + 1];
    int fail_at; /* a vferry_thread_kind; 0: none */
};

static int jail(const vferry_thread *thread, void *opaque)
{
    struct seen *seen = opaque;
    int64_t calls[CALLS_MAX];
    size_t count;
    char name[16];
    CHECK(thread->size >= sizeof *thread && thread->kind >= 1 && thread->kind <= VFERRY_THREAD_WORKER);
    CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, thread->name) == 0);
    CHECK(pthread_mutex_lock(&seen->lock) == 0);
    seen->threads[thread->kind]++;
    CHECK(pthread_mutex_unlock(&seen->lock) == 0);
    if (seen->fail_at == (int)thread->kind)
        return EPERM;
    MUST(vferry_system_calls(thread->kind, thread->backend, calls, CALLS_MAX, &count));
    return set_filter(calls, count, 0);
}

/* A whole migration in this process, on the VMM's thread and on the library's. */
static void migrate(uint32_t backend, struct seen *seen, uint32_t expected)
{
    struct double_plan plan = {1500000, 30001, 800003, 1};
    struct double_device leaving, coming;
    struct drive source = {.devices = &leaving, .count = 1, .stop_when_ready = 1};
    struct drive target = {.devices = &coming, .count = 1};
    vferry_report report = {.size = sizeof report};
    vferry_options *options;
    int fds[2];
    size_t given, taken;
    MUST(vferry_options_new(&options));
    MUST(vferry_options_set_backend(options, backend));
    MUST(vferry_options_set_workers(options, 2));
    if (seen)
        MUST(vferry_options_set_thread_start(options, jail, seen));
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    double_source(&leaving, "net0", plan);
    double_target(&coming, "net0");
    MUST(vferry_device_set_on_reset(leaving.ferry, VFERRY_ON_RESET_RESTART, 1, VFERRY_ON_RESET_ABORT));
    MUST(vferry_session_source(options, &leaving.ferry, 1, &fds[0], 1, &source.session));
    MUST(vferry_session_target(options, &coming.ferry, 1, &fds[1], 1, &target.session));
    vferry_options_free(&options);
    for (int over = 0; over != 3;) {
        over = drive_turn(&source) | drive_turn(&target) << 1;
        sched_yield();
    }
    MUST(vferry_session_report(source.session, &report));
    CHECK(report.ending == VFERRY_ENDING_HANDED_OVER && report.backend == expected);
    MUST(vferry_session_report(target.session, &report));
    CHECK(report.ending == VFERRY_ENDING_RUNNING && report.backend == expected);
    CHECK(double_hash(&leaving, &given) == double_hash(&coming, &taken) && given == taken);
    vferry_session_free(&source.session);
    vferry_session_free(&target.session);
    double_free(&leaving);
    double_free(&coming);
}

/* Whoever starts a session under its own filter passes that on. */
static void *as_embedder(void *opaque)
{
    int64_t calls[CALLS_MAX];
    size_t count;
    uint32_t backend = *(const uint32_t *)opaque;
    struct seen seen = {.lock = PTHREAD_MUTEX_INITIALIZER};
    MUST(vferry_system_calls(VFERRY_THREAD_EMBEDDER, backend, calls, CALLS_MAX, &count));
    calls[count++] = SYS_memfd_create; /* the double's */
    calls[count++] = SYS_ftruncate;
    calls[count++] = SYS_pread64;
    calls[count++] = SYS_pwrite64;
    calls[count++] = SYS_seccomp; /* the hook's */
    calls[count++] = SYS_eventfd2;
    CHECK(set_filter(calls, count, 0) == 0);
    migrate(backend, &seen, backend);
    CHECK(seen.threads[VFERRY_THREAD_NET] == 2 && seen.threads[VFERRY_THREAD_CONTROL] == 2);
    CHECK(seen.threads[VFERRY_THREAD_WORKER] == 4);
    CHECK(seen.threads[VFERRY_THREAD_DATA] == 2);
    if (traps)
        fprintf(stderr, "system call %d is not in the table\n", (int)trapped_call);
    CHECK(traps == 0);
    return NULL;
}

static void *without_io_uring(void *opaque)
{
    const int64_t refused = SYS_io_uring_setup;
    (void)opaque;
    CHECK(set_filter(&refused, 1, 1) == 0);
    /* Chosen, it is not even looked for; found out, it is. */
    migrate(VFERRY_BACKEND_SYSCALLS, NULL, VFERRY_BACKEND_SYSCALLS);
    CHECK(traps == 0);
    migrate(VFERRY_BACKEND_AUTO, NULL, VFERRY_BACKEND_SYSCALLS);
    CHECK(traps > 0 && trapped_call == SYS_io_uring_setup);
    return NULL;
}

static void run(void *(*test)(void *), uint32_t backend)
{
    pthread_t thread;
    traps = 0;
    CHECK(pthread_create(&thread, NULL, test, &backend) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void a_hook_that_fails(void)
{
    struct seen seen = {.lock = PTHREAD_MUTEX_INITIALIZER, .fail_at = VFERRY_THREAD_DATA};
    vferry_options *options = test_options();
    struct pair pair;
    char text[512];
    int fds[2];
    memset(&pair, 0, sizeof pair);
    MUST(vferry_options_set_backend(options, VFERRY_BACKEND_SYSCALLS));
    MUST(vferry_options_set_thread_start(options, jail, &seen));
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    MUST(vferry_device_embedded("net0", VFERRY_HOST_SOURCE, 0, -1, &pair.source.device));
    CHECK(vferry_session_source(options, &pair.source.device, 1, fds, 1, &pair.source.session) ==
          VFERRY_ERR_SYSTEM);
    CHECK(vferry_last_error(text, sizeof text) > 0 && strstr(text, "ferry-fd-0"));
    CHECK(pair.source.session == NULL && is_open(fds[0]));
    close(fds[0]);
    close(fds[1]);
    vferry_options_free(&options);
    vferry_device_free(&pair.source.device);
}

static int has_io_uring(void)
{
    long fd = syscall(SYS_io_uring_setup, 1, (char[120]){0});
    if (fd >= 0)
        close((int)fd);
    return fd >= 0;
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    int64_t calls[CALLS_MAX];
    size_t count = 7;
    CHECK(sigaction(SIGSYS, &action, NULL) == 0);
    CHECK(vferry_system_calls(9, VFERRY_BACKEND_SYSCALLS, calls, CALLS_MAX, &count) == VFERRY_ERR_RANGE);
    CHECK(vferry_system_calls(VFERRY_THREAD_NET, VFERRY_BACKEND_AUTO, calls, CALLS_MAX, &count) ==
          VFERRY_ERR_RANGE);
    CHECK(vferry_system_calls(VFERRY_THREAD_NET, VFERRY_BACKEND_SYSCALLS, calls, 3, &count) ==
              VFERRY_ERR_BUFFER_TOO_SMALL && count == 7);
    a_hook_that_fails();
    run(as_embedder, VFERRY_BACKEND_SYSCALLS);
    if (has_io_uring())
        run(as_embedder, VFERRY_BACKEND_IO_URING);
    run(without_io_uring, 0);
    return 0;
}
