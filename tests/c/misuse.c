/* Every misuse of options, engines, devices and the log is answered with its status, changes nothing,
 * and crashes nothing. Streams and sessions: misuse_streams.c, misuse_session.c. */
#include "misuse.h"

#include <errno.h>

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
    MUST(vferry_device_embedded("net0", VFERRY_HOST_SOURCE, 0, 0, &device)); /* 0 is an fd. */
    vferry_device_free(&device);
    vferry_device_free(&source);
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
    CHECK(strcmp(vferry_cause_text(VFERRY_CAUSE_CANCELLED), "cancelled") == 0);
    CHECK(strcmp(vferry_observed_text(VFERRY_OBSERVED_EMBEDDER), "embedder") == 0);
    CHECK(strcmp(vferry_step_text(VFERRY_STEP_READ), "read") == 0);
    CHECK(vferry_abi_version() == VFERRY_ABI_VERSION);
    snprintf(small, sizeof small, "%d.%d.%d", VFERRY_VERSION_MAJOR, VFERRY_VERSION_MINOR,
             VFERRY_VERSION_PATCH);
    CHECK(strcmp(vferry_version_text(), small) == 0);
    CHECK(vferry_wire_version_min() == VFERRY_WIRE_VERSION_MIN);
    CHECK(vferry_wire_version_max() == VFERRY_WIRE_VERSION_MAX);
}
int main(void)
{
    options();
    devices();
    the_rest();
    printf("%d misuses answered\n", checks);
    return 0;
}
