/* Every misuse of a door, a listener, streams or a channel is answered with its status, and changes
 * nothing. */
#include "misuse.h"

#include <errno.h>

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
    ANSWERS(VFERRY_ERR_CANCELLED, vferry_listener_take(listener, 0, cancel, &streams));
    ANSWERS(VFERRY_ERR_CANCELLED, vferry_listener_take(listener, -1, cancel, &streams));
    vferry_canceller_free(&cancel);
    CHECK(cancel == NULL);
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
    CHECK(streams == NULL);
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
    CHECK(guarded == NULL);
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
    int fds[VFERRY_STREAMS_MAX] = {-1, -1};
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
    CHECK(count == 2 && fds[0] != fds[1] && is_open(fds[0]) && is_open(fds[1]));
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
    int fds[VFERRY_STREAMS_MAX + 1], fd = -7, other = -1;
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
    CHECK(is_open(other));
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
    CHECK(channel == NULL);
    vferry_channel_free(&channel);
    vferry_channel_free(NULL);
}

/* Who was turned away stands in the log. */
static void the_log(void)
{
    vferry_log_line line;
    memset(&line, 0xff, sizeof line);
    line.size = sizeof line;
    MUST(vferry_log_next(&line));
    CHECK(line.size == sizeof line && line.level == VFERRY_LOG_WARN && line.lost == 0);
    CHECK(line.time_ns > 0 && strstr(line.text, "turned away"));
}

int main(void)
{
    MUST(vferry_log_start(VFERRY_LOG_WARN, 100));
    streams();
    the_log();
    printf("%d misuses answered\n", checks);
    return 0;
}
