/*
 * Both hosts' VMMs in one process, with TLS between them: by an authority and a
 * name, then by the keys that each has seen of the other; and peers that are
 * not who they have to be. The folder is one that ferry-pki has made.
 */
#include "drive.h"

#include <pthread.h>
#include <stdlib.h>

#define STREAMS 2
#define LIMIT_MS 60000
#define KEY_BYTES 32

static const char *folder;

/* What the source's thread is told, and what came of it. */
struct source {
    char address[64];
    vferry_door *door;
    int status;
    char text[VFERRY_TEXT_BYTES];
    uint8_t key[KEY_BYTES]; /* the target's */
    vferry_report report;
};

static const char *in_folder(const char *file)
{
    static char path[2][4096];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, file);
    return path[turn];
}

static char *content_of(const char *file)
{
    FILE *opened = fopen(in_folder(file), "r");
    char *content = calloc(1, 16384);
    CHECK(opened && content && fread(content, 1, 16383, opened) > 0);
    fclose(opened);
    return content;
}

/* The library seals and opens by itself, whatever the kernel has. */
static bool own_records;

static void is_guarded(vferry_session *session)
{
    for (size_t i = 0; i < STREAMS; i++) {
        bool tls = false;
        char fault[VFERRY_TEXT_BYTES];
        MUST(vferry_session_protection(session, i, &tls, fault, sizeof fault));
        CHECK(tls && !*fault);
        /* Either will do, but where it was not to be the kernel. */
        MUST(vferry_session_tls_in_kernel(session, i, &tls));
        CHECK(!(tls && own_records));
    }
}

/* Runs a session to its end, and tells how it ended. */
static void to_the_end(struct drive *drive, vferry_report *report)
{
    drive_to_end(drive);
    *report = (vferry_report){.size = sizeof *report};
    MUST(vferry_session_report(drive->session, report));
    if (report->ending == VFERRY_ENDING_HANDED_OVER || report->ending == VFERRY_ENDING_RUNNING)
        is_guarded(drive->session);
    CHECK(vferry_session_wait_closed(drive->session, LIMIT_MS) == VFERRY_OK);
    vferry_session_free(&drive->session);
}

static void *migrate_away(void *opaque)
{
    struct source *source = opaque;
    struct double_device device;
    struct drive drive = {.devices = &device, .count = 1, .stop_when_ready = 1};
    vferry_options *options = test_options();
    vferry_streams *streams = NULL;
    source->status =
        vferry_connect_with(source->address, source->door, LIMIT_MS, NULL, STREAMS, &streams);
    vferry_last_error(source->text, sizeof source->text);
    if (source->status == VFERRY_OK) {
        MUST(vferry_streams_peer_key(streams, source->key));
        double_source(&device, "net0", (struct double_plan){1500000, 30001, 800003, 0});
        MUST(vferry_session_source_over(options, &device.ferry, 1, &streams, &drive.session));
        CHECK(streams == NULL);
        to_the_end(&drive, &source->report);
        double_free(&device);
    }
    vferry_options_free(&options);
    return NULL;
}

/* Takes what comes. 0 where nobody has come when the source is through. */
static int migrate_here(struct source *source, const vferry_door *door, uint8_t *key,
                        vferry_report *report, uint64_t *turned_away)
{
    struct double_device device;
    struct drive drive = {.devices = &device, .count = 1};
    vferry_options *options = test_options();
    vferry_listener *listener = NULL;
    vferry_streams *streams = NULL;
    pthread_t thread;
    uint16_t port;
    int status;
    MUST(vferry_listener_new_with("127.0.0.1:0", door, &listener));
    MUST(vferry_listener_port(listener, &port));
    snprintf(source->address, sizeof source->address, "127.0.0.1:%u", port);
    CHECK(pthread_create(&thread, NULL, migrate_away, source) == 0);
    do {
        status = vferry_listener_take(listener, 50, NULL, &streams);
        CHECK(status == VFERRY_OK || status == VFERRY_ERR_TIMEOUT);
        MUST(vferry_listener_turned_away(listener, VFERRY_REASON_ANY, turned_away));
    } while (status != VFERRY_OK && !*turned_away);
    if (status == VFERRY_OK) {
        CHECK(vferry_streams_count(streams) == STREAMS);
        MUST(vferry_streams_peer_key(streams, key));
        double_target(&device, "net0");
        MUST(vferry_session_target_over(options, &device.ferry, 1, &streams, &drive.session));
        to_the_end(&drive, report);
        double_free(&device);
    }
    vferry_listener_free(&listener);
    CHECK(pthread_join(thread, NULL) == 0);
    vferry_options_free(&options);
    return status == VFERRY_OK;
}

static vferry_door *by_folder(uint32_t host, const char *who, const char *name)
{
    vferry_door *door = NULL;
    MUST(vferry_door_new(&door));
    MUST(vferry_door_set_tls_folder(door, host, in_folder(who), name));
    return door;
}

static vferry_door *by_key(uint32_t host, const char *certificate, const char *key, const uint8_t *peer)
{
    vferry_door *door = NULL;
    char *own[] = {content_of(certificate), content_of(key)};
    MUST(vferry_door_new(&door));
    MUST(vferry_door_set_tls_keys(door, host, own[0], own[1], peer, 1));
    if (own_records)
        MUST(vferry_door_set_tls_kernel(door, false));
    free(own[0]);
    free(own[1]);
    return door;
}

/* One migration; the doors are freed. */
static void completes(vferry_door *here, vferry_door *there, uint8_t *source_key, uint8_t *target_key)
{
    struct source source = {.door = here};
    vferry_report report;
    uint64_t turned_away = 0;
    CHECK(migrate_here(&source, there, source_key, &report, &turned_away) && turned_away == 0);
    CHECK(source.status == VFERRY_OK && source.report.ending == VFERRY_ENDING_HANDED_OVER);
    CHECK(report.ending == VFERRY_ENDING_RUNNING);
    memcpy(target_key, source.key, KEY_BYTES);
    vferry_door_free(&here);
    vferry_door_free(&there);
}

/* The source finds somebody else, or is somebody else: nothing of it gets in. */
static void is_refused(vferry_door *here, vferry_door *there, int by_the_source)
{
    struct source source = {.door = here};
    vferry_report report;
    uint64_t turned_away = 0;
    uint8_t key[KEY_BYTES];
    CHECK(!migrate_here(&source, there, key, &report, &turned_away) && turned_away > 0);
    if (by_the_source)
        CHECK(source.status == VFERRY_ERR_PEER_UNTRUSTED && *source.text);
    else /* It is seen only once the session has begun. */
        CHECK(source.status == VFERRY_ERR_PEER_REFUSED ||
              (source.status == VFERRY_OK && source.report.ending == VFERRY_ENDING_RETURNED));
    vferry_door_free(&here);
    vferry_door_free(&there);
}

int main(int argc, char **argv)
{
    uint8_t source_key[KEY_BYTES], target_key[KEY_BYTES], again[2][KEY_BYTES], wrong[KEY_BYTES];
    int fds = open_fds();
    CHECK(argc == 2);
    folder = argv[1];

    completes(by_folder(VFERRY_HOST_SOURCE, "source", "target.test"),
              by_folder(VFERRY_HOST_TARGET, "target", "source.test"), source_key, target_key);
    CHECK(memcmp(source_key, target_key, KEY_BYTES) != 0);
    own_records = true;
    completes(by_key(VFERRY_HOST_SOURCE, "source/client-cert.pem", "source/client-key.pem", target_key),
              by_key(VFERRY_HOST_TARGET, "target/server-cert.pem", "target/server-key.pem", source_key),
              again[0], again[1]);
    CHECK(memcmp(again[0], source_key, KEY_BYTES) == 0 && memcmp(again[1], target_key, KEY_BYTES) == 0);

    is_refused(by_folder(VFERRY_HOST_SOURCE, "source", "elsewhere.test"),
               by_folder(VFERRY_HOST_TARGET, "target", NULL), 1);
    is_refused(by_folder(VFERRY_HOST_SOURCE, "source", "target.test"),
               by_folder(VFERRY_HOST_TARGET, "stranger", NULL), 1);
    is_refused(by_folder(VFERRY_HOST_SOURCE, "stranger", "target.test"),
               by_folder(VFERRY_HOST_TARGET, "target", NULL), 0);
    memcpy(wrong, target_key, KEY_BYTES);
    wrong[KEY_BYTES - 1] ^= 1;
    is_refused(by_key(VFERRY_HOST_SOURCE, "source/client-cert.pem", "source/client-key.pem", wrong),
               by_folder(VFERRY_HOST_TARGET, "target", NULL), 1);
    wait_for_fds(fds);
    return 0;
}
