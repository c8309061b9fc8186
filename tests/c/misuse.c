/* Every misuse is answered with its status, changes nothing, and crashes nothing. */
#include "drive.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int checks;

/* A call answers this, and the last error has a sentence for whatever is a fault. */
#define ANSWERS(expected, call) answers((expected), (call), #call, __LINE__)
static void answers(int expected, int found, const char *call, int line)
{
    char why[VFERRY_TEXT_BYTES] = "";
    checks++;
    if (found != expected) {
        vferry_last_error(why, sizeof why);
        fprintf(stderr, "misuse.c:%d: %s: %d (%s: %s), not %d\n", line, call, found,
                vferry_status_text(found), why, expected);
        exit(1);
    }
    if (found >= 100)
        CHECK(vferry_last_error(why, sizeof why) > 0 && why[0]);
}

/* Connected sockets, and an fd number under which nothing is open. */
static void sockets(int fds[2])
{
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
}

static int closed_fd(void)
{
    int fd = fcntl(0, F_DUPFD_CLOEXEC, 900); /* A number that nothing takes meanwhile. */
    CHECK(fd >= 0 && close(fd) == 0);
    return fd;
}

static int is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void options(void)
{
    static vferry_status (*const limits[])(vferry_options *, int64_t) = {
        vferry_options_set_handshake_limit_ms,   vferry_options_set_stall_limit_ms,
        vferry_options_set_idle_limit_ms,        vferry_options_set_confirm_limit_ms,
        vferry_options_set_switchover_budget_ms,
    };
    vferry_engine *engine = NULL;
    vferry_options *options = NULL;
    ANSWERS(VFERRY_ERR_NULL, vferry_options_new(NULL));
    MUST(vferry_options_new(&options));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_chunk_bytes(NULL, 4096));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_workers(NULL, 1));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_policy(NULL, 0, 0));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_backend(NULL, 0));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_zero_copy(NULL, true));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_memory_bytes(NULL, 1));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_rate(NULL, 1));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_path_rate(NULL, 1));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_engine(NULL, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_engine_new(NULL, options, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_engine_new(&engine, options, SIZE_MAX));
    vferry_engine_free(NULL);
    vferry_engine_free(&engine);
    CHECK(engine == NULL && vferry_engine_memory_left(NULL) == 0);
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_peer_silence_ms(NULL, 1));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_cancel_bound_ms(NULL, 1));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_precopy_poll_ms(NULL, 1));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_handshake_limit_ms(NULL, 1));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_stall_limit_ms(NULL, 1));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_idle_limit_ms(NULL, 1));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_switchover_budget_ms(NULL, 1));
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_confirm_limit_ms(NULL, 1));
    MUST(vferry_options_set_policy(options, VFERRY_POLICY_ADAPTIVE, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_options_set_policy(options, 3, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_options_set_policy(options, VFERRY_POLICY_ZSTD, 20));
    ANSWERS(VFERRY_ERR_RANGE, vferry_options_set_backend(options, 3));
    ANSWERS(VFERRY_ERR_RANGE, vferry_options_set_peer_silence_ms(options, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_options_set_cancel_bound_ms(options, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_options_set_precopy_poll_ms(options, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_options_set_peer_silence_ms(options, -2));
    ANSWERS(VFERRY_ERR_RANGE, vferry_options_set_cancel_bound_ms(options, VFERRY_NO_LIMIT));
    ANSWERS(VFERRY_ERR_RANGE, vferry_options_set_precopy_poll_ms(options, INT64_MAX));
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        ANSWERS(VFERRY_ERR_RANGE, limits[i](options, 0));
        ANSWERS(VFERRY_ERR_RANGE, limits[i](options, -2));
        ANSWERS(VFERRY_ERR_RANGE, limits[i](options, 86400001));
        ANSWERS(VFERRY_ERR_RANGE, limits[i](options, INT64_MAX));
        ANSWERS(VFERRY_OK, limits[i](options, 86400000));
        ANSWERS(VFERRY_OK, limits[i](options, VFERRY_NO_LIMIT));
    }
    vferry_options_free(&options);
    CHECK(options == NULL);
    vferry_options_free(&options); /* A second time does nothing. */
    vferry_options_free(NULL);
    ANSWERS(VFERRY_ERR_NULL, vferry_options_set_workers(options, 1));
}

static void devices(void)
{
    static const uint8_t opaque[VFERRY_MESSAGE_BYTES_MAX + 1];
    char name[300];
    int closed = closed_fd(), fd = -7;
    uint32_t want = 77;
    vferry_device *device = NULL, *source = NULL, *untouched = (vferry_device *)&checks;

    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    ANSWERS(VFERRY_ERR_NULL, vferry_device_open(NULL, "/", &device));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_open("net0", NULL, &device));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_open("net0", "/", NULL));
    ANSWERS(VFERRY_ERR_NO_SUCH_DEVICE, vferry_device_open("net0", "/no/such/device", &untouched));
    CHECK(untouched == (vferry_device *)&checks); /* Out-parameters are written on success only. */
    ANSWERS(VFERRY_ERR_NULL, vferry_device_from_fd(NULL, 0, &device));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_from_fd("net0", 0, NULL));
    ANSWERS(VFERRY_ERR_BAD_FD, vferry_device_from_fd("net0", -1, &device));
    ANSWERS(VFERRY_ERR_BAD_FD, vferry_device_from_fd("net0", closed, &device));
    CHECK(vferry_last_errno() == EBADF);
    ANSWERS(VFERRY_ERR_NULL, vferry_device_embedded(NULL, VFERRY_HOST_SOURCE, 0, -1, &device));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_embedded("net0", VFERRY_HOST_SOURCE, 0, -1, NULL));
    ANSWERS(VFERRY_ERR_DEVICE_NAME, vferry_device_embedded("", VFERRY_HOST_SOURCE, 0, -1, &device));
    ANSWERS(VFERRY_ERR_TOO_LONG, vferry_device_embedded(name, VFERRY_HOST_SOURCE, 0, -1, &device));
    ANSWERS(VFERRY_ERR_NOT_UTF8, vferry_device_embedded("\xff", VFERRY_HOST_SOURCE, 0, -1, &device));
    ANSWERS(VFERRY_ERR_RANGE, vferry_device_embedded("net0", 3, 0, -1, &device));
    ANSWERS(VFERRY_ERR_RANGE, vferry_device_embedded("net0", VFERRY_HOST_SOURCE, 16, -1, &device));
    ANSWERS(VFERRY_ERR_BAD_FD, vferry_device_embedded("net0", VFERRY_HOST_SOURCE, 0, closed, &device));
    ANSWERS(VFERRY_ERR_BAD_FD, vferry_device_embedded("net0", VFERRY_HOST_SOURCE, 0, -2, &device));
    CHECK(device == NULL);

    MUST(vferry_device_embedded("net0", VFERRY_HOST_SOURCE, 0, -1, &source));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_set_precopy(NULL, true));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_set_on_reset(NULL, 0, 0, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_device_set_on_reset(source, 3, 0, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_device_set_on_reset(source, VFERRY_ON_RESET_RESTART, 1, 1));
    MUST(vferry_device_set_on_reset(source, VFERRY_ON_RESET_RESTART, 1, VFERRY_ON_RESET_ABORT));
    MUST(vferry_device_set_on_reset(source, VFERRY_ON_RESET_RESTART, 1, VFERRY_ON_RESET_STOP_COPY));
    MUST(vferry_device_set_on_reset(source, VFERRY_ON_RESET_STOP_COPY, 0, 0));
    MUST(vferry_device_set_on_reset(source, VFERRY_ON_RESET_ABORT, 0, 0));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_set_reset_to_return(NULL, true));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_set_latencies(NULL, 1, 2, 3));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_set_weight(NULL, 1));
    ANSWERS(VFERRY_ERR_RANGE, vferry_device_set_weight(source, 0));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_set_opaque(NULL, opaque, 1));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_set_opaque(source, NULL, 1));
    ANSWERS(VFERRY_OK, vferry_device_set_opaque(source, NULL, 0));
    ANSWERS(VFERRY_ERR_TOO_LONG, vferry_device_set_opaque(source, opaque, sizeof opaque));
    ANSWERS(VFERRY_ERR_TOO_LONG, vferry_device_set_opaque(source, opaque, SIZE_MAX));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_wanted(NULL, &want));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_wanted(source, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_event_fd(NULL, &fd));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_event_fd(source, NULL));
    CHECK(want == 77 && fd == -7);
    ANSWERS(VFERRY_ERR_NULL, vferry_device_state_done(NULL, VFERRY_STATE_STOP, -1, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_device_state_done(source, 8, 0, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_device_state_done(source, -1, 0, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_device_state_done(source, VFERRY_STATE_STOP, -1, -5));
    ANSWERS(VFERRY_ERR_RANGE, vferry_device_state_done(source, VFERRY_STATE_STOP, 0, 5));
    CHECK(is_open(0)); /* Fds are taken over on success only. */
    ANSWERS(VFERRY_ERR_BAD_FD, vferry_device_state_done(source, VFERRY_STATE_PRE_COPY, closed, 0));
    ANSWERS(VFERRY_ERR_BAD_FD, vferry_device_state_done(source, VFERRY_STATE_PRE_COPY, -2, 0));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_precopy_info_done(NULL, 0, 0, 0, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_device_precopy_info_done(source, 0, 0, 2, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_device_precopy_info_done(source, 0, 0, 0, -5));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_reset_done(NULL, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_device_reset_done(source, -1));
    ANSWERS(VFERRY_ERR_NULL, vferry_device_set_stop_copy_length(NULL, 0));

    /* A real device is not embedded. /dev/null takes VFIO's ioctls as little as any file. */
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    MUST(vferry_device_from_fd("null", fd, &device));
    CHECK(close(fd) == 0); /* It was duplicated. */
    ANSWERS(VFERRY_ERR_NOT_EMBEDDED, vferry_device_wanted(device, &want));
    ANSWERS(VFERRY_ERR_NOT_EMBEDDED, vferry_device_state_done(device, VFERRY_STATE_STOP, -1, 0));
    vferry_device_free(&device);
    vferry_device_free(&device);
    vferry_device_free(NULL);
    vferry_device_free(&source);
}

/* The door: what guards streams, and what ends its waits. */
static void door(vferry_listener *listener, const char *address)
{
    vferry_door *guarded = NULL;
    vferry_canceller *cancel = NULL;
    vferry_streams *streams = NULL;
    vferry_listener *other = NULL;
    uint64_t turned_away = 7;
    uint8_t session[16] = {1};
    char peer[64];

    ANSWERS(VFERRY_ERR_NULL, vferry_door_new(NULL));
    MUST(vferry_door_new(&guarded));
    ANSWERS(VFERRY_ERR_NULL, vferry_door_set_plaintext(NULL, true));
    ANSWERS(VFERRY_ERR_RANGE, vferry_door_set_connections(guarded, 0, 1));
    ANSWERS(VFERRY_ERR_RANGE, vferry_door_set_connections(guarded, 1, 4097));
    ANSWERS(VFERRY_OK, vferry_door_set_connections(guarded, 100, 64));
    ANSWERS(VFERRY_ERR_RANGE, vferry_door_set_sessions_max(guarded, 0));
    ANSWERS(VFERRY_OK, vferry_door_set_sessions_max(guarded, 1));
    ANSWERS(VFERRY_ERR_RANGE, vferry_door_set_greeting_limit_ms(guarded, 0));
    ANSWERS(VFERRY_OK, vferry_door_set_greeting_limit_ms(guarded, 1000));
    ANSWERS(VFERRY_ERR_RANGE, vferry_door_set_gathering_limit_ms(guarded, -1));
    ANSWERS(VFERRY_OK, vferry_door_set_gathering_limit_ms(guarded, 1000));
    ANSWERS(VFERRY_OK, vferry_door_set_session(guarded, session));
    ANSWERS(VFERRY_OK, vferry_door_set_session(guarded, NULL));

    ANSWERS(VFERRY_ERR_NULL, vferry_door_set_tls_folder(guarded, VFERRY_HOST_SOURCE, NULL, "a"));
    ANSWERS(VFERRY_ERR_NULL, vferry_door_set_tls_folder(guarded, VFERRY_HOST_SOURCE, "/no/such", NULL));
    ANSWERS(VFERRY_ERR_RANGE, vferry_door_set_tls_folder(guarded, 3, "/no/such", "a"));
    ANSWERS(VFERRY_ERR_CREDENTIALS, vferry_door_set_tls_folder(guarded, VFERRY_HOST_TARGET, "/no/such", NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_door_set_tls_keys(guarded, VFERRY_HOST_TARGET, NULL, "", session, 0));
    ANSWERS(VFERRY_ERR_NULL, vferry_door_set_tls_keys(guarded, VFERRY_HOST_TARGET, "", "", NULL, 1));
    ANSWERS(VFERRY_ERR_CREDENTIALS,
        vferry_door_set_tls_keys(guarded, VFERRY_HOST_TARGET, "no PEM", "", NULL, 0));
    ANSWERS(VFERRY_ERR_EMPTY, vferry_door_set_tls_kernel(guarded, false));
    ANSWERS(VFERRY_ERR_NULL, vferry_door_set_tls_kernel(NULL, false));

    /* Plaintext stays on this host, unless it is asked for by name. */
    ANSWERS(VFERRY_ERR_PLAINTEXT, vferry_listener_new("0.0.0.0:0", &other));
    ANSWERS(VFERRY_ERR_PLAINTEXT, vferry_listener_new_with("0.0.0.0:0", guarded, &other));
    ANSWERS(VFERRY_ERR_PLAINTEXT, vferry_connect_with("192.0.2.1:1", NULL, 1, NULL, 1, &streams));
    ANSWERS(VFERRY_OK, vferry_door_set_plaintext(guarded, true));
    MUST(vferry_listener_new_with("0.0.0.0:0", guarded, &other));
    vferry_listener_free(&other);

    ANSWERS(VFERRY_ERR_NULL, vferry_canceller_new(NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_canceller_cancel(NULL));
    MUST(vferry_canceller_new(&cancel));
    ANSWERS(VFERRY_ERR_NULL, vferry_listener_take(NULL, 0, NULL, &streams));
    ANSWERS(VFERRY_ERR_NULL, vferry_listener_take(listener, 0, NULL, NULL));
    ANSWERS(VFERRY_ERR_TIMEOUT, vferry_listener_take(listener, 0, cancel, &streams));
    ANSWERS(VFERRY_OK, vferry_canceller_cancel(cancel));
    ANSWERS(VFERRY_ERR_CANCELLED, vferry_listener_take(listener, -1, cancel, &streams));
    vferry_canceller_free(&cancel);
    vferry_canceller_free(&cancel);
    vferry_canceller_free(NULL);

    ANSWERS(VFERRY_ERR_NULL, vferry_connect_with(address, NULL, 1000, NULL, 1, NULL));
    ANSWERS(VFERRY_ERR_RANGE, vferry_connect_with(address, NULL, 1000, NULL, 0, &streams));
    MUST(vferry_connect_with(address, guarded, 60000, NULL, 2, &streams));
    CHECK(vferry_streams_count(NULL) == 0 && vferry_streams_count(streams) == 2);
    ANSWERS(VFERRY_ERR_NULL, vferry_streams_peer(NULL, 0, peer, sizeof peer));
    ANSWERS(VFERRY_ERR_NULL, vferry_streams_peer(streams, 0, NULL, sizeof peer));
    ANSWERS(VFERRY_ERR_RANGE, vferry_streams_peer(streams, 2, peer, sizeof peer));
    ANSWERS(VFERRY_ERR_BUFFER_TOO_SMALL, vferry_streams_peer(streams, 0, peer, 4));
    MUST(vferry_streams_peer(streams, 1, peer, sizeof peer));
    CHECK(strcmp(peer, address) == 0);
    ANSWERS(VFERRY_ERR_EMPTY, vferry_streams_session(streams, session));
    ANSWERS(VFERRY_ERR_EMPTY, vferry_streams_peer_key(streams, session));
    vferry_streams_free(&streams);
    vferry_streams_free(&streams);
    vferry_streams_free(NULL);
    ANSWERS(VFERRY_ERR_TIMEOUT, vferry_listener_take(listener, 50, NULL, &streams));

    ANSWERS(VFERRY_ERR_NULL, vferry_listener_turned_away(listener, 0, NULL));
    ANSWERS(VFERRY_ERR_RANGE, vferry_listener_turned_away(listener, 99, &turned_away));
    MUST(vferry_listener_turned_away(listener, VFERRY_REASON_CLOSED, &turned_away));
    CHECK(turned_away > 0);
    CHECK(strcmp(vferry_reason_text(VFERRY_REASON_CROWDED), "crowded") == 0);
    CHECK(strcmp(vferry_reason_text(99), "unknown") == 0);
    vferry_door_free(&guarded);
    vferry_door_free(&guarded);
    vferry_door_free(NULL);
}

/* What is too much for the caller's room stays, and the next call gives it. */
static void too_little_room(vferry_listener *listener, const char *address)
{
    struct double_device leaving, coming;
    struct double_plan plan = {0, 0, 1000, 0};
    vferry_options *options = test_options();
    vferry_device *handle;
    vferry_session *source = NULL, *target = NULL;
    vferry_streams *streams = NULL, *arrived = NULL;
    int fds[VFERRY_STREAMS_MAX];
    uint8_t session[16] = {0};
    char fault[VFERRY_TEXT_BYTES] = "x";
    bool tls = true;
    size_t count = 77;

    double_source(&leaving, "net0", plan);
    handle = leaving.ferry;
    ANSWERS(VFERRY_ERR_NULL, vferry_session_source_over(NULL, &handle, 1, NULL, &source));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_source_over(NULL, &handle, 1, &streams, &source));
    MUST(vferry_connect_with(address, NULL, 60000, NULL, 2, &streams));
    MUST(vferry_session_source_over(options, &handle, 1, &streams, &source));
    CHECK(streams == NULL);
    ANSWERS(VFERRY_ERR_BUFFER_TOO_SMALL, vferry_listener_accept(listener, 60000, fds, 1, &count));
    CHECK(count == 77);
    MUST(vferry_listener_accept(listener, 60000, fds, VFERRY_STREAMS_MAX, &count));
    CHECK(count == 2);
    close(fds[0]);
    close(fds[1]);
    vferry_session_free(&source);
    double_free(&leaving);

    double_source(&leaving, "net0", plan);
    handle = leaving.ferry;
    MUST(vferry_connect_with(address, NULL, 60000, NULL, 2, &streams));
    MUST(vferry_session_source_over(options, &handle, 1, &streams, &source));
    MUST(vferry_listener_take(listener, 60000, NULL, &arrived));
    CHECK(vferry_streams_count(arrived) == 2);
    MUST(vferry_streams_session(arrived, session));
    double_target(&coming, "net0");
    handle = coming.ferry;
    MUST(vferry_session_target_over(options, &handle, 1, &arrived, &target));
    CHECK(arrived == NULL);
    ANSWERS(VFERRY_ERR_NULL, vferry_session_protection(target, 0, NULL, fault, sizeof fault));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_protection(target, 0, &tls, NULL, sizeof fault));
    ANSWERS(VFERRY_ERR_UNKNOWN_NUMBER, vferry_session_protection(target, 2, &tls, fault, sizeof fault));
    MUST(vferry_session_protection(target, 1, &tls, fault, sizeof fault));
    CHECK(!tls && fault[0] == 0);
    ANSWERS(VFERRY_ERR_NULL, vferry_session_tls_in_kernel(target, 0, NULL));
    ANSWERS(VFERRY_ERR_UNKNOWN_NUMBER, vferry_session_tls_in_kernel(target, 2, &tls));
    ANSWERS(VFERRY_ERR_EMPTY, vferry_session_tls_in_kernel(target, 1, &tls));
    vferry_session_free(&source);
    vferry_session_free(&target);
    double_free(&leaving);
    double_free(&coming);
    vferry_options_free(&options);
}

static void streams(void)
{
    vferry_listener *listener = NULL;
    vferry_channel *channel = NULL;
    int fds[VFERRY_STREAMS_MAX + 1], fd = -7, other;
    uint16_t port = 7;
    size_t count = 77;
    uint8_t byte = 0;
    char address[32];
    char *long_address = malloc(1 << 20);

    ANSWERS(VFERRY_ERR_NULL, vferry_connect(NULL, 60000, fds, 1));
    ANSWERS(VFERRY_ERR_NULL, vferry_connect("127.0.0.1:1", 60000, NULL, 1));
    ANSWERS(VFERRY_ERR_RANGE, vferry_connect("127.0.0.1:1", 60000, fds, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_connect("127.0.0.1:1", 60000, fds, VFERRY_STREAMS_MAX + 1));
    ANSWERS(VFERRY_ERR_ADDRESS, vferry_connect("nowhere", 60000, fds, 1));
    ANSWERS(VFERRY_ERR_CONNECTION, vferry_connect("127.0.0.1:1", 60000, fds, 1));
    CHECK(vferry_last_errno() == ECONNREFUSED);
    ANSWERS(VFERRY_ERR_RANGE, vferry_connect("127.0.0.1:1", -2, fds, 1));
    memset(long_address, 'a', (1 << 20) - 1);
    long_address[(1 << 20) - 1] = 0;
    ANSWERS(VFERRY_ERR_ADDRESS, vferry_listener_new(long_address, &listener));
    free(long_address);
    ANSWERS(VFERRY_ERR_NULL, vferry_listener_new(NULL, &listener));
    ANSWERS(VFERRY_ERR_NULL, vferry_listener_new("127.0.0.1:0", NULL));
    ANSWERS(VFERRY_ERR_ADDRESS, vferry_listener_new("nowhere", &listener));
    CHECK(listener == NULL);
    MUST(vferry_listener_new("127.0.0.1:0", &listener));
    ANSWERS(VFERRY_ERR_NULL, vferry_listener_port(NULL, &port));
    ANSWERS(VFERRY_ERR_NULL, vferry_listener_port(listener, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_listener_fd(NULL, &fd));
    ANSWERS(VFERRY_ERR_NULL, vferry_listener_fd(listener, NULL));
    ANSWERS(VFERRY_OK, vferry_listener_fd(listener, &fd));
    ANSWERS(VFERRY_ERR_NULL, vferry_listener_accept(NULL, 1, fds, 1, &count));
    ANSWERS(VFERRY_ERR_NULL, vferry_listener_accept(listener, 1, NULL, 1, &count));
    ANSWERS(VFERRY_ERR_NULL, vferry_listener_accept(listener, 1, fds, 1, NULL));
    ANSWERS(VFERRY_ERR_BUFFER_TOO_SMALL, vferry_listener_accept(listener, 1, fds, 0, &count));
    ANSWERS(VFERRY_ERR_TIMEOUT, vferry_listener_accept(listener, 1, fds, 1, &count));
    MUST(vferry_listener_port(listener, &port));
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    MUST(vferry_connect(address, 60000, &other, 1)); /* It says nothing, and then goes. */
    ANSWERS(VFERRY_ERR_TIMEOUT, vferry_listener_accept(listener, 50, fds, 1, &count));
    close(other);
    MUST(vferry_connect(address, 60000, &other, 1));
    close(other);
    ANSWERS(VFERRY_ERR_TIMEOUT, vferry_listener_accept(listener, 50, fds, 1, &count));
    CHECK(count == 77);
    door(listener, address);
    too_little_room(listener, address);
    vferry_listener_free(&listener);
    CHECK(listener == NULL);
    vferry_listener_free(&listener);
    vferry_listener_free(NULL);

    ANSWERS(VFERRY_ERR_NULL, vferry_channel_new(NULL, &fd));
    ANSWERS(VFERRY_ERR_NULL, vferry_channel_new(&channel, NULL));
    CHECK(channel == NULL);
    MUST(vferry_channel_new(&channel, &fd));
    ANSWERS(VFERRY_ERR_NULL, vferry_channel_pull(NULL, &byte, 1, &count));
    ANSWERS(VFERRY_ERR_NULL, vferry_channel_pull(channel, NULL, 1, &count));
    ANSWERS(VFERRY_ERR_NULL, vferry_channel_pull(channel, &byte, 1, NULL));
    ANSWERS(VFERRY_ERR_BUFFER_TOO_SMALL, vferry_channel_pull(channel, &byte, 0, &count));
    ANSWERS(VFERRY_ERR_RANGE, vferry_channel_pull(channel, &byte, SIZE_MAX, &count));
    ANSWERS(VFERRY_ERR_EMPTY, vferry_channel_pull(channel, &byte, 1, &count));
    ANSWERS(VFERRY_ERR_NULL, vferry_channel_push(NULL, &byte, 1, &count));
    ANSWERS(VFERRY_ERR_NULL, vferry_channel_push(channel, NULL, 1, &count));
    ANSWERS(VFERRY_ERR_NULL, vferry_channel_push(channel, &byte, 1, NULL));
    ANSWERS(VFERRY_OK, vferry_channel_push(channel, NULL, 0, &count));
    CHECK(count == 0);
    ANSWERS(VFERRY_ERR_NULL, vferry_channel_fd(NULL, &other));
    ANSWERS(VFERRY_ERR_NULL, vferry_channel_fd(channel, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_channel_close(NULL));
    close(fd); /* As a session does at its end. */
    ANSWERS(VFERRY_ERR_ENDED, vferry_channel_pull(channel, &byte, 1, &count));
    ANSWERS(VFERRY_ERR_ENDED, vferry_channel_push(channel, &byte, 1, &count));
    ANSWERS(VFERRY_OK, vferry_channel_close(channel));
    ANSWERS(VFERRY_OK, vferry_channel_close(channel));
    vferry_channel_free(&channel);
    vferry_channel_free(&channel);
    vferry_channel_free(NULL);
}

/* What no session can be made of leaves the fds and the devices with the caller. */
static void sessions_that_are_none(void)
{
    vferry_options *options = NULL;
    vferry_session *session = NULL;
    vferry_device *twice[2], *names[2], *none = NULL, *target = NULL, *null = NULL, *same = NULL;
    int fds[2], pipes[2], both[2], file = open("/dev/null", O_RDWR | O_CLOEXEC);
    int closed;

    sockets(fds);
    CHECK(pipe2(pipes, O_CLOEXEC) == 0);
    closed = closed_fd();
    MUST(vferry_options_new(&options));
    MUST(vferry_device_embedded("net0", VFERRY_HOST_SOURCE, 0, -1, &twice[0]));
    MUST(vferry_device_embedded("net0", VFERRY_HOST_SOURCE, 0, -1, &same));
    MUST(vferry_device_embedded("net0", VFERRY_HOST_TARGET, 0, -1, &target));
    MUST(vferry_device_from_fd("null", file, &null));
    twice[1] = twice[0];

#define SOURCE(devices, count, fds, streams) \
    vferry_session_source(options, devices, count, fds, streams, &session)
    ANSWERS(VFERRY_ERR_NULL, vferry_session_source(NULL, twice, 1, fds, 1, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_target(NULL, &target, 1, fds, 1, NULL));
    ANSWERS(VFERRY_ERR_NULL, SOURCE(NULL, 1, fds, 1));
    ANSWERS(VFERRY_ERR_NULL, SOURCE(&none, 1, fds, 1));
    ANSWERS(VFERRY_ERR_NULL, SOURCE(twice, 1, NULL, 1));
    ANSWERS(VFERRY_ERR_RANGE, SOURCE(twice, 0, fds, 1));
    ANSWERS(VFERRY_ERR_RANGE, SOURCE(twice, VFERRY_DEVICES_MAX + 1, fds, 1));
    ANSWERS(VFERRY_ERR_RANGE, SOURCE(twice, SIZE_MAX, fds, 1));
    ANSWERS(VFERRY_ERR_RANGE, SOURCE(twice, 1, fds, 0));
    ANSWERS(VFERRY_ERR_RANGE, SOURCE(twice, 1, fds, VFERRY_STREAMS_MAX + 1));
    ANSWERS(VFERRY_ERR_DEVICE_IN_USE, SOURCE(twice, 2, fds, 1));
    twice[1] = same;
    ANSWERS(VFERRY_ERR_DEVICE_NAME, SOURCE(twice, 2, fds, 1));
    ANSWERS(VFERRY_ERR_WRONG_HOST, SOURCE(&target, 1, fds, 1));
    ANSWERS(VFERRY_ERR_WRONG_HOST, vferry_session_target(NULL, twice, 1, fds, 1, &session));
    ANSWERS(VFERRY_ERR_NOT_MIGRATABLE, SOURCE(&null, 1, fds, 1));
    ANSWERS(VFERRY_ERR_BAD_FD, SOURCE(twice, 1, &closed, 1));
    ANSWERS(VFERRY_ERR_BAD_FD, SOURCE(twice, 1, &pipes[1], 1));
    ANSWERS(VFERRY_ERR_BAD_FD, SOURCE(twice, 1, &file, 1));
    both[0] = both[1] = fds[0];
    ANSWERS(VFERRY_ERR_BAD_FD, SOURCE(twice, 1, both, 2));
    both[1] = dup(fds[0]);
    ANSWERS(VFERRY_ERR_BAD_FD, SOURCE(twice, 1, both, 2));
    CHECK(close(both[1]) == 0);
    for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) { /* Neither is connected. */
        both[0] = socket(AF_INET, type, 0);
        ANSWERS(VFERRY_ERR_BAD_FD, SOURCE(twice, 1, both, 1));
        CHECK(close(both[0]) == 0);
    }
    /* One device under two names. */
    MUST(vferry_device_embedded("net1", VFERRY_HOST_SOURCE, 0, file, &names[0]));
    MUST(vferry_device_embedded("net2", VFERRY_HOST_SOURCE, 0, file, &names[1]));
    ANSWERS(VFERRY_ERR_DEVICE_IN_USE, SOURCE(names, 2, fds, 1));
    vferry_device_free(&names[0]);
    vferry_device_free(&names[1]);
    MUST(vferry_options_set_chunk_bytes(options, 1));
    ANSWERS(VFERRY_ERR_RANGE, SOURCE(twice, 1, fds, 1));
    MUST(vferry_options_set_chunk_bytes(options, 4 << 20));
    MUST(vferry_options_set_memory_bytes(options, 4096));
    ANSWERS(VFERRY_ERR_MEMORY_LIMIT, SOURCE(twice, 1, fds, 1));
    MUST(vferry_options_set_memory_bytes(options, 32 << 20));
    MUST(vferry_options_set_chunk_bytes(options, 4096));
    MUST(vferry_options_set_workers(options, 65));
    ANSWERS(VFERRY_ERR_RANGE, SOURCE(twice, 1, fds, 1));
    MUST(vferry_options_set_workers(options, 1));
    MUST(vferry_options_set_rate(options, 1000));
    ANSWERS(VFERRY_ERR_RATE_NEEDS_TCP, SOURCE(twice, 1, fds, 1));
#undef SOURCE

    CHECK(session == NULL && is_open(fds[0]) && is_open(fds[1]) && is_open(pipes[1]));
    MUST(vferry_device_set_weight(twice[0], 2)); /* In no session's hands. */
    vferry_device_free(&twice[0]);
    vferry_device_free(&same);
    vferry_device_free(&target);
    vferry_device_free(&null);
    vferry_options_free(&options);
    close(fds[0]), close(fds[1]), close(pipes[0]), close(pipes[1]), close(file);
}

/* Calls in the wrong order, after a cancel, with structs of the wrong size. */
static void a_session(void)
{
    static const uint8_t message[VFERRY_MESSAGE_BYTES_MAX + 1];
    vferry_options *options = test_options();
    vferry_device *device = NULL, *coming = NULL;
    vferry_session *session = NULL, *target = NULL;
    vferry_event event = {.size = sizeof event};
    vferry_report report = {.size = sizeof report};
    vferry_device_report one = {.size = sizeof one};
    vferry_device_stats device_stats = {.size = sizeof device_stats};
    vferry_stream_stats stream_stats = {.size = sizeof stream_stats};
    vferry_duration_stats durations = {.size = sizeof durations};
    struct { vferry_event event; char more[64]; } later; /* As a later header may have it. */
    int fds[2], fd = -7, status;
    size_t count = 77;
    uint8_t byte;

    sockets(fds);
    MUST(vferry_device_embedded("net0", VFERRY_HOST_SOURCE, VFERRY_EMBEDDED_PRECOPY, -1, &device));
    MUST(vferry_device_embedded("net0", VFERRY_HOST_TARGET, 0, -1, &coming));
    MUST(vferry_session_source(options, &device, 1, &fds[0], 1, &session));
    ANSWERS(VFERRY_ERR_DEVICE_IN_USE, vferry_device_set_weight(device, 2));
    ANSWERS(VFERRY_ERR_DEVICE_IN_USE, vferry_session_source(NULL, &device, 1, &fds[1], 1, &target));
    vferry_device_free(&device); /* The session keeps it. */

    ANSWERS(VFERRY_ERR_NOT_ENDED, vferry_session_report(session, &report));
    ANSWERS(VFERRY_ERR_NOT_ENDED, vferry_session_device_report(session, 0, &one));
    ANSWERS(VFERRY_ERR_TIMEOUT, vferry_session_finish(session, 1, &report));
    ANSWERS(VFERRY_ERR_UNKNOWN_NUMBER, vferry_session_device_was_reset(session, 1));
    ANSWERS(VFERRY_ERR_TOO_LONG, vferry_session_send(session, message, sizeof message));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_send(session, NULL, 1));
    for (count = 0; count < VFERRY_MESSAGES_WAITING_MAX; count++) /* Nobody reads them. */
        ANSWERS(VFERRY_OK, vferry_session_send(session, message, 1));
    ANSWERS(VFERRY_ERR_FULL, vferry_session_send(session, message, 1));
    ANSWERS(VFERRY_ERR_TIMEOUT, vferry_session_finish(session, 1, &report)); /* It goes on. */
    count = 77;
    ANSWERS(VFERRY_ERR_NULL, vferry_session_poll(session, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_wait(session, 0, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_report(session, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_device_report(session, 0, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_finish(session, 0, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_event_fd(session, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_payload(session, &byte, 1, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_device_stats(session, 0, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_stream_stats(session, 0, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_step_stats(session, 1, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_phase_stats(session, 1, NULL));
    ANSWERS(VFERRY_ERR_UNKNOWN_NUMBER, vferry_session_device_stats(session, 1, &device_stats));
    ANSWERS(VFERRY_ERR_UNKNOWN_NUMBER, vferry_session_stream_stats(session, 1, &stream_stats));
    ANSWERS(VFERRY_ERR_RANGE, vferry_session_step_stats(session, 0, &durations));
    ANSWERS(VFERRY_ERR_RANGE, vferry_session_step_stats(session, 8, &durations));
    ANSWERS(VFERRY_ERR_RANGE, vferry_session_phase_stats(session, 9, &durations));
    ANSWERS(VFERRY_ERR_TIMEOUT, vferry_session_wait_ready(session, 1, 1));
    ANSWERS(VFERRY_ERR_RANGE, vferry_session_wait_ready(session, 1, -2));
    ANSWERS(VFERRY_ERR_RANGE, vferry_session_wait(session, -2, &event));
    ANSWERS(VFERRY_ERR_RANGE, vferry_session_finish(session, INT64_MIN, &report));
    ANSWERS(VFERRY_ERR_RANGE, vferry_session_wait_closed(session, -2));
    ANSWERS(VFERRY_ERR_TIMEOUT, vferry_session_wait_closed(session, 1));

    /* Sizes. */
    event.size = 0;
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_poll(session, &event));
    event.size = offsetof(vferry_event, switchover_budget_ns) - 1; /* Less than the first version. */
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_wait(session, 0, &event));
    report.size = 8;
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_report(session, &report));
    one.size = device_stats.size = stream_stats.size = durations.size = 4;
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_device_report(session, 0, &one));
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_device_stats(session, 0, &device_stats));
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_stream_stats(session, 0, &stream_stats));
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_step_stats(session, 1, &durations));
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_phase_stats(session, 1, &durations));

    /* The peer meets it, and leaves. */
    MUST(vferry_session_target(options, &coming, 1, &fds[1], 1, &target));
    vferry_options_free(&options); /* Sessions have copied them. */
    memset(&later, 0x55, sizeof later);
    later.event.size = sizeof later;
    MUST(vferry_session_wait(target, 60000, &later.event));
    CHECK(later.event.size == sizeof event && later.event.type == VFERRY_EVENT_CONNECTED);
    CHECK(later.more[0] == 0x55); /* What this library does not know is left as it was. */
    ANSWERS(VFERRY_ERR_WRONG_HOST, vferry_session_switchover(target));
    ANSWERS(VFERRY_ERR_WRONG_HOST, vferry_session_device_was_reset(target, 0));
    ANSWERS(VFERRY_ERR_WRONG_HOST, vferry_session_wait_ready(target, 1, 0));
    CHECK(!vferry_event_is_ready(&later.event, UINT64_MAX) && !vferry_event_is_ready(NULL, 1));
    MUST(vferry_session_cancel(target));
    MUST(vferry_session_cancel(target));

    event.size = sizeof event;
    while ((status = vferry_session_wait(session, 60000, &event)) == VFERRY_OK)
        ;
    ANSWERS(VFERRY_ERR_ENDED, status);
    CHECK(event.type == VFERRY_EVENT_FINISHED && event.ending == VFERRY_ENDING_RETURNED);
    CHECK(event.text[0] && event.device == VFERRY_DEVICE_NONE);
    ANSWERS(VFERRY_ERR_ENDED, vferry_session_poll(session, &event));
    ANSWERS(VFERRY_ERR_ENDED, vferry_session_wait(session, VFERRY_NO_LIMIT, &event));
    ANSWERS(VFERRY_ERR_ENDED, vferry_session_wait_ready(session, 1, 1));
    ANSWERS(VFERRY_ERR_ENDED, vferry_session_switchover(session));
    ANSWERS(VFERRY_ERR_ENDED, vferry_session_send(session, message, 1));
    ANSWERS(VFERRY_ERR_ENDED, vferry_session_device_was_reset(session, 0));
    ANSWERS(VFERRY_OK, vferry_session_cancel(session));
    ANSWERS(VFERRY_OK, vferry_session_payload(session, NULL, 0, &count));
    CHECK(count == 0);
    report.size = sizeof report;
    ANSWERS(VFERRY_OK, vferry_session_finish(session, VFERRY_NO_LIMIT, &report));
    CHECK(report.ending == VFERRY_ENDING_RETURNED && report.text[0]);
    one.size = sizeof one;
    ANSWERS(VFERRY_ERR_UNKNOWN_NUMBER, vferry_session_device_report(session, 1, &one));
    ANSWERS(VFERRY_OK, vferry_session_event_fd(session, &fd));
    ANSWERS(VFERRY_OK, vferry_session_finish(target, 60000, &report));
    CHECK(report.cause == VFERRY_CAUSE_CANCELLED);
    ANSWERS(VFERRY_OK, vferry_session_wait_closed(session, 60000));
    ANSWERS(VFERRY_OK, vferry_session_wait_closed(target, VFERRY_NO_LIMIT));
    CHECK(!is_open(fds[0]) && !is_open(fds[1])); /* They were the sessions'. */
    vferry_session_free(&session);
    vferry_session_free(&session);
    vferry_session_free(NULL);
    vferry_session_free(&target);

    /* An embedded device is for one session, even after it. */
    sockets(fds);
    ANSWERS(VFERRY_ERR_DEVICE_IN_USE, vferry_session_target(NULL, &coming, 1, fds, 1, &target));
    vferry_device_free(&coming);
    close(fds[0]), close(fds[1]);

    ANSWERS(VFERRY_ERR_NULL, vferry_session_poll(NULL, &event));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_wait(NULL, 0, &event));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_wait_ready(NULL, 0, 0));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_switchover(NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_cancel(NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_wait_closed(NULL, 0));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_device_was_reset(NULL, 0));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_send(NULL, message, 1));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_event_fd(NULL, &fd));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_payload(NULL, &byte, 1, &count));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_report(NULL, &report));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_finish(NULL, 0, &report));
}

/* A session that is freed while it runs is cancelled, and the fds that its VMM handed in are closed. */
static void freed_while_it_runs(void)
{
    vferry_options *options = test_options();
    vferry_device *device = NULL;
    vferry_session *session = NULL;
    int fds[2], data[2], before = open_fds();
    sockets(fds);
    CHECK(pipe2(data, O_CLOEXEC) == 0);
    MUST(vferry_device_embedded("net0", VFERRY_HOST_TARGET, 0, -1, &device));
    MUST(vferry_device_state_done(device, VFERRY_STATE_RESUMING, data[1], 0)); /* Before it is wanted. */
    CHECK(is_open(data[1]));
    MUST(vferry_session_target(options, &device, 1, fds, 1, &session));
    vferry_options_free(&options);
    vferry_session_free(&session);
    vferry_device_free(&device);
    CHECK(!is_open(data[1]));
    close(data[0]), close(fds[1]);
    wait_for_fds(before); /* A moment longer for the stream. */
}

static void the_rest(void)
{
    vferry_log_line line = {.size = sizeof line};
    char small[8];
    ANSWERS(VFERRY_ERR_NULL, vferry_log_next(NULL));
    ANSWERS(VFERRY_ERR_EMPTY, vferry_log_next(&line));
    ANSWERS(VFERRY_ERR_RANGE, vferry_log_start(0, 10));
    ANSWERS(VFERRY_ERR_RANGE, vferry_log_start(5, 10));
    ANSWERS(VFERRY_ERR_RANGE, vferry_log_start(VFERRY_LOG_WARN, 0));
    ANSWERS(VFERRY_ERR_RANGE, vferry_log_start(VFERRY_LOG_WARN, SIZE_MAX));
    ANSWERS(VFERRY_OK, vferry_log_start(VFERRY_LOG_ERROR, 10));
    ANSWERS(VFERRY_ERR_LOG_TAKEN, vferry_log_start(VFERRY_LOG_ERROR, 10));
    ANSWERS(VFERRY_ERR_LOG_TAKEN, vferry_log_start(VFERRY_LOG_WARN, 10));
    ANSWERS(VFERRY_ERR_LOG_TAKEN, vferry_log_start(VFERRY_LOG_INFO, 10));
    ANSWERS(VFERRY_ERR_LOG_TAKEN, vferry_log_start(VFERRY_LOG_DEBUG, 10));
    line.size = 3;
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_log_next(&line));

    ANSWERS(VFERRY_ERR_NULL, vferry_session_cancel(NULL));
    CHECK(vferry_last_error(NULL, 0) == strlen("session is NULL"));
    CHECK(vferry_last_error(small, sizeof small) == strlen("session is NULL"));
    CHECK(strcmp(small, "session") == 0);
    CHECK(strcmp(vferry_status_text(-5), "unknown status") == 0);
    CHECK(strcmp(vferry_phase_text(99), "unknown") == 0);
    CHECK(strcmp(vferry_state_text(VFERRY_STATE_UNKNOWN), "unknown") == 0);
    CHECK(strcmp(vferry_ending_text(VFERRY_ENDING_NOT_BLANK), "not_blank") == 0);
    CHECK(strcmp(vferry_ending_text(VFERRY_ENDING_NOT_BLANK + 1), "unknown") == 0);
    CHECK(strcmp(vferry_epoch_ending_text(VFERRY_EPOCH_ABORTED), "aborted") == 0);
    CHECK(vferry_abi_version() == VFERRY_ABI_VERSION);
    snprintf(small, sizeof small, "%d.%d.%d", VFERRY_VERSION_MAJOR, VFERRY_VERSION_MINOR,
             VFERRY_VERSION_PATCH);
    CHECK(strcmp(vferry_version_text(), small) == 0);
    CHECK(vferry_wire_version_max() == VFERRY_WIRE_VERSION_MAX);
}

int main(void)
{
    options();
    devices();
    streams();
    sessions_that_are_none();
    a_session();
    freed_while_it_runs();
    the_rest();
    printf("%d misuses answered\n", checks);
    return 0;
}
