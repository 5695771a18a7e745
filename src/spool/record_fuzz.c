/*
 * The octets of a segment as a hostile disk might give them: decoders of every kind on the input, then a whole recovery
 * from a memory disk that holds it as a segment, and again as a snapshot.
 */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "spool/memdisk.h"
#include "spool/recover.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void file_put(const struct spool_disk *disk, const char *path, const uint8_t *data, size_t size)
{
    int fd = disk->open(disk->arg, path, DISK_RENEW);
    (void)disk_write(disk, fd, data, size, 0);
    disk->close(disk->arg, fd);
}

/* The checksums of a first batch are made right, so that the fuzzer gets behind them. */
static void checksums_mend(uint8_t *octets, size_t size)
{
    struct batch_header h;
    struct segment_header s = {.seq = 1, .life = 7, .size = size};
    if (size < SPOOL_BLOCK + BATCH_HEADER_SIZE) {
        return;
    }
    segment_header_encode(&s, octets);
    uint8_t *head = octets + SPOOL_BLOCK;
    size_t room = size - SPOOL_BLOCK - BATCH_HEADER_SIZE;
    if (batch_header_peek((struct span){head, size - SPOOL_BLOCK}, &h) < 0 || h.meta_length > room) {
        h = (struct batch_header){.seq = 1, .tail = 1, .meta_length = (uint32_t)room};
    }
    h.segment = 1;
    h.life = 7;
    struct span meta = {head + BATCH_HEADER_SIZE, h.meta_length};
    struct record rec;
    while (record_next(&meta, &rec) == 1) {
    }
    if (meta.len == 0) {
        batch_seal(&h, head);
    }
}

static void records_decode(const uint8_t *data, size_t size, struct record_scratch *scratch)
{
    struct span meta = {data, size};
    struct record rec;
    struct record_message m;
    struct record_outcome o;
    struct record_change c;
    struct record_report p;
    struct record_account a;
    while (record_next(&meta, &rec) == 1) {
        (void)record_message_decode(rec.payload, &m, scratch);
        (void)record_outcome_decode(rec.payload, &o, scratch);
        (void)record_change_decode(&rec, &c);
        (void)record_report_decode(rec.payload, &p, scratch);
        (void)record_account_decode(&rec, &a);
    }
}

static void recover(const uint8_t *segment, size_t size, const uint8_t *snapshot, size_t snapshot_size)
{
    struct memdisk *mem = memdisk_new(1U << 20);
    struct spool_disk disk = memdisk_calls(mem);
    const struct index_config config = {.shards = 2, .schedule = schedule_config_default(), .seed = 3};
    const struct recover_options options = {.segment_size = 65536};
    struct index *ix = index_new(&config);
    struct recovery rec;
    file_put(&disk, "000000000001.seg", segment, size);
    if (snapshot != NULL) {
        file_put(&disk, "index.snap", snapshot, snapshot_size);
    }
    if (recover_run(&disk, ix, &options, &rec) == 0) {
        free(rec.log.segments);
        recovery_fini(&rec);
    }
    index_free(&ix);
    memdisk_free(&mem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct record_scratch scratch;
    uint8_t *octets = malloc(size + 1);
    if (octets == NULL || size > 256U * 1024U) {
        free(octets);
        return 0;
    }
    memcpy(octets, data, size);
    log_open("fuzz", LOG_LEVEL_ERROR + 1, -1);
    records_decode(data, size, &scratch);
    recover(data, size, NULL, 0);
    checksums_mend(octets, size);
    recover(octets, size, data, size);
    free(octets);
    return 0;
}
