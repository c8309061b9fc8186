/*
 * Embedded devices whose VMM says two things while the engine wants one: every
 * pair, against every question of either host, with and without a device fd,
 * from one thread and from two. Whatever the pair is, nothing is forgotten: a
 * VMM that from then on does what is wanted comes to the end of both sessions,
 * and the two endings fit each other. No limit of time helps: none is set.
 */
#include "drive.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What the kernel knows of a device. Whoever moves it tells before another does. */
struct kernel {
    vferry_device *ferry;
    pthread_mutex_t moves;
    _Atomic int state;
    _Atomic unsigned been; /* in which states */
    int fd; /* stands for the VFIO device fd, or -1 */
    ino_t inode;
};

static struct kernel kernels[2];
#define SOURCE (&kernels[0])
#define TARGET (&kernels[1])

/* --- the kernel ------------------------------------------------------------------------------- */

#define FEATURE 0x3b75
#define RESET 0x3b6f
#define PRECOPY_INFO 0x3b79

struct feature {
    uint32_t argsz, flags;
    uint32_t state;
    int32_t data_fd;
};

static void moved(struct kernel *kernel, int state)
{
    kernel->state = state;
    kernel->been |= 1u << state;
}

/* The library's calls on a device fd come here. */
int ioctl(int fd, unsigned long request, ...)
{
    struct stat stat;
    va_list list;
    void *argument;
    va_start(list, request);
    argument = va_arg(list, void *);
    va_end(list);
    for (size_t i = 0; i < 2 && (request == FEATURE || request == RESET); i++) {
        struct feature *feature = argument;
        if (kernels[i].fd == -1 || fstat(fd, &stat) != 0 || stat.st_ino != kernels[i].inode)
            continue;
        if (request == RESET) {
            moved(&kernels[i], VFERRY_STATE_RUNNING);
            return 0;
        }
        if ((feature->flags & 0xffff) == 2 && feature->flags & 1 << 16) {
            feature->state = (uint32_t)kernels[i].state;
            feature->data_fd = -1;
            return 0;
        }
        errno = ENOTTY; /* MIG_DATA_SIZE */
        return -1;
    }
    return (int)syscall(SYS_ioctl, fd, request, argument);
}

static int content(size_t bytes)
{
    int fd = memfd_create("state", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    return fd;
}

/* SET_STATE, and the VMM tells. The lock is what QEMU's BQL is. */
static void set_state(struct kernel *kernel, int to)
{
    int from, fd = -1, error = 0;
    pthread_mutex_lock(&kernel->moves);
    from = kernel->state;
    if (from == VFERRY_STATE_ERROR)
        error = EIO;
    if (from == VFERRY_STATE_STOP_COPY && to == VFERRY_STATE_PRE_COPY) {
        /* Kernels before 6.12.96 spin for ever. The other thread may have said STOP_COPY since this
         * was wanted: then it is not wanted any more. */
        uint32_t want;
        MUST(vferry_device_wanted(kernel->ferry, &want));
        CHECK(want != VFERRY_WANT_PRE_COPY);
        pthread_mutex_unlock(&kernel->moves);
        return;
    }
    if (!error && from != to) {
        if (to == VFERRY_STATE_PRE_COPY || to == VFERRY_STATE_RESUMING ||
            (to == VFERRY_STATE_STOP_COPY && from != VFERRY_STATE_PRE_COPY))
            fd = content(to == VFERRY_STATE_RESUMING ? 0 : 30000);
        moved(kernel, to);
    }
    MUST(vferry_device_state_done(kernel->ferry, to, fd, error));
    pthread_mutex_unlock(&kernel->moves);
}

/* The device is found somewhere, and the VMM tells. */
static void found(struct kernel *kernel, int state, int fd)
{
    pthread_mutex_lock(&kernel->moves);
    moved(kernel, state);
    MUST(vferry_device_state_done(kernel->ferry, state, fd, 0));
    pthread_mutex_unlock(&kernel->moves);
}

static void failed(struct kernel *kernel, int state)
{
    MUST(vferry_device_state_done(kernel->ferry, state, -1, EIO));
}

/* Does what is wanted. */
static void serve(struct kernel *kernel, uint32_t want)
{
    switch (want) {
    case VFERRY_WANT_NOTHING:
        break;
    case VFERRY_WANT_PRECOPY_INFO:
        MUST(vferry_device_precopy_info_done(kernel->ferry, 0, 0, 0,
                                             kernel->state == VFERRY_STATE_PRE_COPY ? 0 : EINVAL));
        break;
    case VFERRY_WANT_RESET:
        moved(kernel, VFERRY_STATE_RUNNING);
        MUST(vferry_device_reset_done(kernel->ferry, 0));
        break;
    default:
        set_state(kernel, (int)want);
    }
}

/* --- what a VMM says -------------------------------------------------------------------------- */

static void enters_pre_copy(struct kernel *k) { found(k, VFERRY_STATE_PRE_COPY, content(20000)); }
static void is_in_pre_copy(struct kernel *k) { found(k, VFERRY_STATE_PRE_COPY, -1); }
static void enters_stop_copy(struct kernel *k) { found(k, VFERRY_STATE_STOP_COPY, content(20000)); }
static void is_in_stop_copy(struct kernel *k) { found(k, VFERRY_STATE_STOP_COPY, -1); }
static void runs(struct kernel *k) { found(k, VFERRY_STATE_RUNNING, -1); }
static void is_in_error(struct kernel *k) { found(k, VFERRY_STATE_ERROR, -1); }
static void fails_to_stop(struct kernel *k) { failed(k, VFERRY_STATE_STOP_COPY); }
static void has_sizes(struct kernel *k)
{
    MUST(vferry_device_precopy_info_done(k->ferry, 0, 0, 0, 0));
}
static void has_no_sizes(struct kernel *k)
{
    MUST(vferry_device_precopy_info_done(k->ferry, 0, 0, 0, EINVAL));
}
static void was_reset(struct kernel *k)
{
    pthread_mutex_lock(&k->moves);
    moved(k, VFERRY_STATE_RUNNING);
    MUST(vferry_device_reset_done(k->ferry, 0));
    pthread_mutex_unlock(&k->moves);
}
static void enters_resuming(struct kernel *k) { found(k, VFERRY_STATE_RESUMING, content(0)); }
static void is_in_stop(struct kernel *k) { found(k, VFERRY_STATE_STOP, -1); }
static void fails_to_load(struct kernel *k) { failed(k, VFERRY_STATE_STOP); }
static void is_not_reset(struct kernel *k) { MUST(vferry_device_reset_done(k->ferry, EIO)); }

struct word {
    const char *name;
    void (*say)(struct kernel *);
};
#define WORD(say) {#say, say}
static const struct word source_words[] = {
    WORD(enters_pre_copy), WORD(is_in_pre_copy), WORD(enters_stop_copy), WORD(is_in_stop_copy),
    WORD(runs),            WORD(is_in_error),    WORD(fails_to_stop),    WORD(has_sizes),
    WORD(has_no_sizes),    WORD(was_reset),
};
static const struct word target_words[] = {
    WORD(enters_resuming), WORD(is_in_stop),   WORD(runs),         WORD(is_in_error),
    WORD(fails_to_load),   WORD(is_not_reset), WORD(was_reset),
};
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* --- two sessions ----------------------------------------------------------------------------- */

struct plan {
    struct kernel *asked;  /* whose question it is */
    uint32_t question;
    int precopy;           /* the device saves in PRE_COPY */
    int device_fd;
    uint32_t on_reset;
    int from_precopy;      /* both hosts save and load before it is asked */
};

static struct {
    vferry_session *source, *target;
} sessions;

static void make(struct kernel *kernel, uint32_t host, uint32_t flags, int with_fd)
{
    struct stat stat;
    memset(kernel, 0, sizeof *kernel);
    pthread_mutex_init(&kernel->moves, NULL);
    moved(kernel, VFERRY_STATE_RUNNING);
    kernel->fd = -1;
    if (with_fd) {
        kernel->fd = content(0);
        CHECK(fstat(kernel->fd, &stat) == 0);
        kernel->inode = stat.st_ino;
    }
    MUST(vferry_device_embedded("net0", host, flags, kernel->fd, &kernel->ferry));
}

static void start(const struct plan *plan)
{
    uint32_t flags = plan->precopy ? VFERRY_EMBEDDED_PRECOPY | VFERRY_EMBEDDED_PRECOPY_INFO : 0;
    vferry_options *options = test_options();
    int fds[2];
    MUST(vferry_options_set_stall_limit_ms(options, VFERRY_NO_LIMIT));
    MUST(vferry_options_set_handshake_limit_ms(options, VFERRY_NO_LIMIT));
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    make(SOURCE, VFERRY_HOST_SOURCE, flags, plan->device_fd);
    make(TARGET, VFERRY_HOST_TARGET, 0, plan->device_fd);
    MUST(vferry_device_set_on_reset(SOURCE->ferry, plan->on_reset, 9, VFERRY_ON_RESET_ABORT));
    MUST(vferry_session_target(options, &TARGET->ferry, 1, &fds[1], 1, &sessions.target));
    MUST(vferry_session_source(options, &SOURCE->ferry, 1, &fds[0], 1, &sessions.source));
    vferry_options_free(&options);
}

/* One turn of both VMMs: waits until there is something to do, and does it, but does not answer what
 * is left open. 0 when both sessions have ended. */
static int turn(const struct kernel *open, uint32_t left_open)
{
    struct pollfd fds[4];
    vferry_report report = {.size = sizeof report};
    vferry_event event = {.size = sizeof event};
    int alive = 0;
    vferry_session *each[] = {sessions.source, sessions.target};
    for (size_t i = 0; i < 2; i++) {
        uint32_t want;
        MUST(vferry_device_wanted(kernels[i].ferry, &want));
        if (&kernels[i] == open && want == left_open)
            return 1;
        serve(&kernels[i], want);
        while (vferry_session_poll(each[i], &event) == VFERRY_OK)
            event.size = sizeof event;
        alive += vferry_session_report(each[i], &report) == VFERRY_ERR_NOT_ENDED;
        MUST(vferry_session_event_fd(each[i], &fds[i].fd));
        MUST(vferry_device_event_fd(kernels[i].ferry, &fds[i + 2].fd));
        fds[i].events = fds[i + 2].events = POLLIN;
    }
    if (alive)
        CHECK(poll(fds, 4, 60000) > 0); /* A minute in which nothing happens: forgotten. */
    return alive;
}

static int is_asked(const struct plan *plan)
{
    uint32_t want;
    MUST(vferry_device_wanted(plan->asked->ferry, &want));
    return want == plan->question;
}

static vferry_report report_of(vferry_session *session)
{
    vferry_report report = {.size = sizeof report};
    MUST(vferry_session_report(session, &report));
    return report;
}

/* The two endings can both be true, and so can what is said of the states. */
static void check_endings(const char *place)
{
    vferry_report source = report_of(sessions.source), target = report_of(sessions.target);
    vferry_device_report here = {.size = sizeof here}, there = {.size = sizeof there};
    int fits = source.cause != VFERRY_CAUSE_TIME_LIMIT && target.cause != VFERRY_CAUSE_TIME_LIMIT;
    MUST(vferry_session_device_report(sessions.source, 0, &here));
    MUST(vferry_session_device_report(sessions.target, 0, &there));
    switch (source.ending) {
    case VFERRY_ENDING_HANDED_OVER:
        fits &= target.ending == VFERRY_ENDING_RUNNING && here.bytes == there.bytes &&
                memcmp(here.digest, there.digest, sizeof here.digest) == 0;
        break;
    case VFERRY_ENDING_RETURNED:
        /* A word may come after the end, and is not in the report. */
        fits &= here.home && (here.state == VFERRY_STATE_UNKNOWN || SOURCE->been & 1u << here.state);
        /* fallthrough */
    case VFERRY_ENDING_UNCONFIRMED:
        fits &= target.ending != VFERRY_ENDING_RUNNING;
        break;
    default: /* Nothing is stuck here, so nothing is not returned. */
        fits = 0;
    }
    if (target.ending == VFERRY_ENDING_BLANK)
        fits &= there.home && there.state == VFERRY_STATE_RUNNING;
    if (!fits) {
        fprintf(stderr, "%s: source %s (%s: %s), target %s (%s: %s); states %d (%d), %d (%d)\n", place,
                vferry_ending_text(source.ending), vferry_cause_text(source.cause), source.text,
                vferry_ending_text(target.ending), vferry_cause_text(target.cause), target.text,
                here.state, SOURCE->state, there.state, TARGET->state);
        exit(1);
    }
}

static void stop(void)
{
    vferry_session_free(&sessions.source);
    vferry_session_free(&sessions.target);
    for (size_t i = 0; i < 2; i++) {
        vferry_device_free(&kernels[i].ferry);
        pthread_mutex_destroy(&kernels[i].moves);
        if (kernels[i].fd != -1)
            close(kernels[i].fd);
        kernels[i].fd = -1;
    }
}

struct saying {
    const struct word *word;
    struct kernel *kernel;
};

static void *say(void *opaque)
{
    struct saying *saying = opaque;
    saying->word->say(saying->kernel);
    return NULL;
}

/* Brings the sessions to the question, says the two words, and goes on to the end. */
static void run(const struct plan *plan, const struct word *first, const struct word *second,
                int threads)
{
    char place[200];
    snprintf(place, sizeof place, "question %u%s%s, on_reset %u: %s, %s%s", plan->question,
             plan->precopy ? ", PRE_COPY" : "", plan->device_fd ? ", device fd" : "", plan->on_reset,
             first->name, second->name, threads ? ", two threads" : "");
    start(plan);
    while (plan->from_precopy &&
           (SOURCE->state != VFERRY_STATE_PRE_COPY || TARGET->state != VFERRY_STATE_RESUMING))
        CHECK(turn(NULL, 0));
    if (plan->question == VFERRY_WANT_RESET)
        runs(SOURCE); /* Its epoch is discarded. */
    else if (plan->question != VFERRY_WANT_PRE_COPY && plan->question != VFERRY_WANT_PRECOPY_INFO)
        MUST(vferry_session_switchover(sessions.source));
    while (!is_asked(plan))
        if (!turn(plan->asked, plan->question))
            check_endings(place), fprintf(stderr, "%s: it was not asked\n", place), exit(1);

    if (threads) {
        struct saying sayings[2] = {{first, plan->asked}, {second, plan->asked}};
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, say, &sayings[0]) == 0);
        say(&sayings[1]);
        CHECK(pthread_join(thread, NULL) == 0);
    } else {
        first->say(plan->asked);
        second->say(plan->asked);
    }
    vferry_session_switchover(sessions.source); /* VFERRY_ERR_ENDED, perhaps. */
    while (turn(NULL, 0)) {
    }
    check_endings(place);
    stop();
}

static int pairs(const struct plan *plan, const struct word *words, size_t count)
{
    int done = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++)
            for (int threads = 0; threads <= (i != j && plan->on_reset != VFERRY_ON_RESET_ABORT);
                 threads++, done++)
                run(plan, &words[i], &words[j], threads);
    return done;
}

int main(void)
{
    const struct plan plans[] = {
        {.asked = SOURCE, .question = VFERRY_WANT_PRE_COPY, .precopy = 1},
        {.asked = SOURCE, .question = VFERRY_WANT_PRECOPY_INFO, .precopy = 1},
        {.asked = SOURCE, .question = VFERRY_WANT_STOP_COPY, .precopy = 1, .from_precopy = 1},
        {.asked = SOURCE, .question = VFERRY_WANT_STOP_COPY},
        {.asked = TARGET, .question = VFERRY_WANT_RESUMING},
        {.asked = TARGET, .question = VFERRY_WANT_STOP},
        {.asked = TARGET, .question = VFERRY_WANT_RUNNING},
        {.asked = TARGET, .question = VFERRY_WANT_RESET, .precopy = 1, .from_precopy = 1},
    };
    int done = 0, fds = open_fds();
    for (size_t i = 0; i < COUNT(plans); i++)
        for (int device_fd = 0; device_fd <= 1; device_fd++)
            for (uint32_t on_reset = 0; on_reset <= 1; on_reset++) {
                struct plan plan = plans[i];
                plan.device_fd = device_fd;
                plan.on_reset = on_reset;
                if (plan.question == VFERRY_WANT_RESET && (device_fd || !on_reset))
                    continue; /* The engine resets by itself; nothing is discarded. */
                if (plan.asked == SOURCE)
                    done += pairs(&plan, source_words, COUNT(source_words));
                else
                    done += pairs(&plan, target_words, COUNT(target_words));
            }
    wait_for_fds(fds);
    printf("%d orders\n", done);
    return 0;
}
