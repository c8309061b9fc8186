// SPDX-License-Identifier: GPL-2.0-only
/*
 * The stream, made from the ready pages while it is read: one segment at a time
 * (a header, a page, the end) in the session's own buffer, hashed as it is made.
 * A state of gigabytes so passes through 4 KiB.
 */
#include <linux/bitmap.h>

#include "save.h"

static void put_segment(struct ferry_save *save, const void *from, size_t len)
{
	memcpy(save->seg + save->seg_len, from, len);
	save->seg_len += len;
}

void ferry_make_header(struct ferry_save *save)
{
	struct ferry_stream_header header = {
		.magic = cpu_to_le64(FERRY_STREAM_MAGIC),
		.version = cpu_to_le32(FERRY_STREAM_VERSION),
		.state_bytes = cpu_to_le64(save->file.ferry->image.bytes),
		.stream_bytes = cpu_to_le64(save->stream_bytes),
	};

	put_segment(save, &header, sizeof(header));
	xxh64_update(&save->file.hash, save->seg, save->seg_len);
}

static void make_record(struct ferry_save *save)
{
	struct ferry_image *img = &save->file.ferry->image;
	unsigned int from = find_next_bit(save->ready, img->nr_pages, save->record_end);
	struct ferry_stream_record record = { .tag = cpu_to_le32(FERRY_RECORD_PAGES) };
	unsigned int to;

	if (from >= img->nr_pages)
		from = find_first_bit(save->ready, img->nr_pages);
	to = find_next_zero_bit(save->ready, min(img->nr_pages, from + save->record_pages),
				from);
	bitmap_clear(save->ready, from, to - from);
	save->nr_ready -= to - from;
	save->record_next = from;
	save->record_end = to;
	record.offset = cpu_to_le64((u64)from * FERRY_PAGE);
	record.bytes = cpu_to_le64(ferry_bytes_between(img, from, to));
	put_segment(save, &record, sizeof(record));
	xxh64_update(&save->file.hash, save->seg, save->seg_len);
}

static void make_page(struct ferry_save *save)
{
	struct ferry_image *img = &save->file.ferry->image;
	unsigned int page = save->record_next++;

	mutex_lock(&img->lock);
	ferry_image_page(img, page, save->seg);
	mutex_unlock(&img->lock);
	save->seg_len = ferry_bytes_between(img, page, page + 1);
	xxh64_update(&save->file.hash, save->seg, save->seg_len);
}

static void make_end(struct ferry_save *save)
{
	struct ferry_stream_record record = {
		.tag = cpu_to_le32(FERRY_RECORD_END),
		.bytes = cpu_to_le64(sizeof(__le64)),
	};
	__le64 digest;

	put_segment(save, &record, sizeof(record));
	xxh64_update(&save->file.hash, save->seg, save->seg_len);
	digest = cpu_to_le64(xxh64_digest(&save->file.hash));
	put_segment(save, &digest, sizeof(digest));
	save->end_made = true;
}

/* The next piece of the stream into seg; false when there is none for now. */
bool ferry_make_segment(struct ferry_save *save)
{
	save->seg_at = save->seg_len = 0;
	if (save->record_next < save->record_end)
		make_page(save);
	else if (save->nr_ready)
		make_record(save);
	else if (save->final && save->complete && !save->end_made)
		make_end(save);
	return save->seg_len;
}
