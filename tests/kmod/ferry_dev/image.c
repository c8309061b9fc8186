// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device's contents.
 *
 * A test must be able to have gigabytes of state without having gigabytes of
 * memory, and must know every byte of it. So a page is computed when it is
 * read, from (seed, generation, page, rewrite number); only pages that came in
 * through a load are kept, and of those, zero pages cost nothing.
 *
 * Time passes by being looked at: ferry_image_age() rewrites as many pages as
 * dirty_rate says the device has rewritten since the last look.
 */
#include <linux/bitmap.h>
#include <linux/math64.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "ferry_dev.h"

#define AGE_NS_MAX (60ULL * NSEC_PER_SEC)

static u64 mix(u64 x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static u64 next(u64 *key)
{
	*key += 0x9e3779b97f4a7c15ULL;
	return mix(*key);
}

#define WORDS (FERRY_PAGE / sizeof(u64))

static void fill_random(u64 *to, u64 key)
{
	int i;

	for (i = 0; i < WORDS; i++)
		to[i] = next(&key);
}

/* A ring of 64-byte descriptors: counters, one address, mostly zeros. */
static void fill_descriptors(u64 *to, u64 key, unsigned int page)
{
	int i;

	memset(to, 0, FERRY_PAGE);
	for (i = 0; i < WORDS; i += 8) {
		to[i] = (u64)page * (WORDS / 8) + i / 8;
		to[i + 1] = 0x100000000ULL + ((u64)(next(&key) & 0xffff) << 12);
		to[i + 2] = 0x0001000000001000ULL;
	}
}

static void fill_text(u64 *to, u64 key)
{
	int i;

	for (i = 0; i < WORDS; i++)
		to[i] = 0x6161616161616161ULL + (next(&key) & 0x0f0f0f0f0f0f0f0fULL);
}

static void generate(struct ferry_image *img, unsigned int page, u64 rewrite,
		     void *to)
{
	u64 kind = mix(img->seed ^ mix(page + 1)) & 7;
	u64 key = mix(mix(mix(img->seed + 1) + img->generation) + page) + rewrite;

	key = mix(key);
	if (img->content == CONTENT_ZERO)
		kind = 0;
	else if (img->content == CONTENT_RANDOM)
		kind = 7;

	if (kind < 2)
		memset(to, 0, FERRY_PAGE);
	else if (kind < 5)
		fill_descriptors(to, key, page);
	else if (kind < 7)
		fill_text(to, key);
	else
		fill_random(to, key);

	/* A rewrite changes the page, a new generation the image, whatever the content. */
	if (rewrite || (img->generation && !page))
		*(u64 *)to = key | 1;
}

struct xarray *ferry_pages_new(void)
{
	struct xarray *pages = kmalloc(sizeof(*pages), GFP_KERNEL_ACCOUNT);

	if (pages)
		xa_init(pages);
	return pages;
}

static void free_entry(void *entry)
{
	if (entry && !xa_is_value(entry))
		free_page((unsigned long)entry);
}

void ferry_pages_free(struct xarray *pages)
{
	unsigned long index;
	void *entry;

	if (!pages)
		return;
	xa_for_each(pages, index, entry) {
		free_entry(entry);
		cond_resched();
	}
	xa_destroy(pages);
	kfree(pages);
}

/* 1: the page is new, 0: it overwrote one. */
int ferry_pages_put(struct xarray *pages, unsigned int page, const void *from)
{
	void *entry, *old;

	if (!memchr_inv(from, 0, FERRY_PAGE)) {
		entry = xa_mk_value(0);
	} else {
		entry = (void *)__get_free_page(GFP_KERNEL_ACCOUNT);
		if (!entry)
			return -ENOMEM;
		memcpy(entry, from, FERRY_PAGE);
	}
	old = xa_store(pages, page, entry, GFP_KERNEL_ACCOUNT);
	if (xa_is_err(old)) {
		free_entry(entry);
		return xa_err(old);
	}
	free_entry(old);
	return !old;
}

static int rewrite_page(struct ferry_image *img, unsigned int page)
{
	void *old = xa_store(img->pages, page, xa_mk_value(img->rewrites + 1),
			     GFP_KERNEL);

	if (xa_is_err(old))
		return xa_err(old);
	free_entry(old);
	img->rewrites++;
	img->change++;
	set_bit(page, img->dirty);
	return 0;
}

/* (Re)builds the image from the knobs. Caller: no session is open. */
int ferry_image_configure(struct ferry *f)
{
	struct ferry_image *img = &f->image;
	u64 bytes = ferry_knob(f, KNOB_STATE_BYTES);
	unsigned int nr_pages = DIV_ROUND_UP_ULL(bytes, FERRY_PAGE);
	unsigned long *dirty = kvcalloc(BITS_TO_LONGS(nr_pages), sizeof(long),
					GFP_KERNEL_ACCOUNT);
	struct xarray *pages = ferry_pages_new();

	if (!dirty || !pages) {
		kvfree(dirty);
		kfree(pages);
		return -ENOMEM;
	}

	mutex_lock(&img->lock);
	swap(img->pages, pages);
	swap(img->dirty, dirty);
	img->bytes = bytes;
	img->nr_pages = nr_pages;
	img->seed = ferry_knob(f, KNOB_SEED);
	img->content = ferry_knob(f, KNOB_CONTENT);
	img->generation = 0;
	img->rewrites = 0;
	img->change++;
	img->aged_until_ns = ktime_get_ns();
	mutex_unlock(&img->lock);

	kvfree(dirty);
	ferry_pages_free(pages);
	return 0;
}

void ferry_image_free(struct ferry_image *img)
{
	ferry_pages_free(img->pages);
	kvfree(img->dirty);
	mutex_destroy(&img->lock);
}

static void age_locked(struct ferry *f)
{
	struct ferry_image *img = &f->image;
	u64 rate = ferry_knob(f, KNOB_DIRTY_RATE);
	u64 span = ferry_knob(f, KNOB_DIRTY_SPAN);
	u64 now = ktime_get_ns();
	u64 past = min(now - img->aged_until_ns, AGE_NS_MAX);
	u64 pages, i;

	if (!img->running || !rate) {
		img->aged_until_ns = now;
		return;
	}
	pages = mul_u64_u64_div_u64(past, rate, NSEC_PER_SEC) / FERRY_PAGE;
	if (!pages)
		return;
	img->aged_until_ns = now - past +
		mul_u64_u64_div_u64(pages * FERRY_PAGE, NSEC_PER_SEC, rate);

	span = span ? DIV_ROUND_UP_ULL(min(span, img->bytes), FERRY_PAGE) :
		      img->nr_pages;
	/* More rewrites than pages tell nobody anything new. */
	pages = min(pages, span);
	for (i = 0; i < pages; i++) {
		if (rewrite_page(img, mix(img->seed + img->rewrites) % span))
			break;
		cond_resched();
	}
}

void ferry_image_age(struct ferry *f)
{
	mutex_lock(&f->image.lock);
	age_locked(f);
	mutex_unlock(&f->image.lock);
}

void ferry_image_set_running(struct ferry *f, bool running)
{
	mutex_lock(&f->image.lock);
	age_locked(f);
	f->image.running = running;
	mutex_unlock(&f->image.lock);
}

/* Rewrites the first pages of the state, as a reconfiguration would. */
int ferry_image_rewrite(struct ferry *f, u64 bytes)
{
	struct ferry_image *img = &f->image;
	unsigned int page, end;
	int ret = 0;

	mutex_lock(&img->lock);
	end = DIV_ROUND_UP_ULL(min(bytes, img->bytes), FERRY_PAGE);
	for (page = 0; page < end && !ret; page++)
		ret = rewrite_page(img, page);
	mutex_unlock(&img->lock);
	return ret;
}

void ferry_image_reset(struct ferry *f)
{
	struct ferry_image *img = &f->image;
	unsigned long index;
	void *entry;

	mutex_lock(&img->lock);
	xa_for_each(img->pages, index, entry) {
		xa_erase(img->pages, index);
		free_entry(entry);
	}
	img->generation++;
	img->rewrites = 0;
	img->change++;
	img->aged_until_ns = ktime_get_ns();
	mutex_unlock(&img->lock);
}

/* The load: takes over pages, which hold every page of the state. */
void ferry_image_adopt(struct ferry *f, struct xarray *pages)
{
	mutex_lock(&f->image.lock);
	swap(f->image.pages, pages);
	f->image.change++;
	mutex_unlock(&f->image.lock);
	ferry_pages_free(pages);
}

/* One page's bytes, padded with zeros past the state's tail. Caller: lock. */
void ferry_image_page(struct ferry_image *img, unsigned int page, void *to)
{
	void *entry = xa_load(img->pages, page);
	u64 offset = (u64)page * FERRY_PAGE;

	lockdep_assert_held(&img->lock);
	if (!entry)
		generate(img, page, 0, to);
	else if (!xa_is_value(entry))
		memcpy(to, entry, FERRY_PAGE);
	else if (!xa_to_value(entry))
		memset(to, 0, FERRY_PAGE);
	else
		generate(img, page, xa_to_value(entry), to);

	if (img->bytes - offset < FERRY_PAGE)
		memset(to + (img->bytes - offset), 0,
		       FERRY_PAGE - (img->bytes - offset));
}

/* XXH64, seed 0, of the state's bytes. The lock is let go between pages. */
u64 ferry_image_digest(struct ferry *f)
{
	struct ferry_image *img = &f->image;
	struct xxh64_state hash;
	unsigned int page = 0;
	u64 change, ret = 0;
	void *buf = (void *)__get_free_page(GFP_KERNEL);

	if (!buf)
		return 0;
	xxh64_reset(&hash, 0);
	mutex_lock(&img->lock);
	age_locked(f);
	change = img->change;
	if (img->digest_change == change) {
		ret = img->digest;
		mutex_unlock(&img->lock);
		goto out;
	}
	while (page < img->nr_pages) {
		ferry_image_page(img, page, buf);
		xxh64_update(&hash, buf, min_t(u64, FERRY_PAGE,
			     img->bytes - (u64)page * FERRY_PAGE));
		page++;
		mutex_unlock(&img->lock);
		cond_resched();
		mutex_lock(&img->lock);
	}
	ret = xxh64_digest(&hash);
	if (img->change == change) {
		img->digest = ret;
		img->digest_change = change;
	}
	mutex_unlock(&img->lock);
out:
	free_page((unsigned long)buf);
	return ret;
}
