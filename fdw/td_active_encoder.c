/*
 * td_active_encoder.c - the settings of a database name its encoder.
 *
 * In: the rows of tinydancer.setting.  Out: a pinned encoder, or the reason why it cannot be had
 * beside what the settings say of it, so that a server without the file still routes by vectors.
 * Called by td_registry.c and td_registry_build.c.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "td_active_encoder.h"

static void
unpin(void *arg)
{
	TdActiveEncoder *active = arg;

	if (active->file != NULL)
		tdpg_encoder_unpin(active->file);
	if (active->counter != NULL)
		tdpg_encoder_unpin(active->counter);
}

TdActiveEncoder *
tdpg_active_encoder_open(const TdSettings *settings, MemoryContext context)
{
	const char *id = settings->encoder != NULL ? settings->encoder : tdpg_encoder_default_id();
	TdActiveEncoder *active = MemoryContextAllocZero(context, sizeof(TdActiveEncoder));
	MemoryContextCallback *callback = MemoryContextAlloc(context, sizeof(MemoryContextCallback));

	/* The pin goes with the context, also when what follows ends in an error. */
	callback->func = unpin;
	callback->arg = active;
	MemoryContextRegisterResetCallback(context, callback);

	active->id = MemoryContextStrdup(context, id);
	active->file = tdpg_encoder_open(id, settings->checksum, &active->fault);
	if (active->file != NULL)
	{
		const td_encoder *encoder = tdpg_encoder_view(active->file);

		active->dim = (int) encoder->dim;
		active->fit_mu = encoder->fit_mu;
		active->fit_s = encoder->fit_s;
	}
	else if (settings->dim > 0 && settings->dim <= (int) TD_MAX_DIM && settings->fit_s > 0)
	{
		TdEncoderFault unused;

		active->dim = settings->dim;
		active->fit_mu = settings->fit_mu;
		active->fit_s = settings->fit_s;
		/* A request that comes with its vector costs what its text costs. */
		active->counter = tdpg_encoder_open(tdpg_encoder_id("static"), 0, &unused);
	}
	else
		/* No vector is stored yet, so there is nothing to decide from either. */
		tdpg_encoder_raise(&active->fault);
	return active;
}

bool
tdpg_active_encoder_is_external(const TdActiveEncoder *active)
{
	return strcmp(active->id, TD_EXTERNAL_ENCODER) == 0;
}

const td_encoder *
tdpg_active_encoder_counter(const TdActiveEncoder *active)
{
	TdEncoderFile *file = active->file != NULL ? active->file : active->counter;

	return file != NULL ? tdpg_encoder_view(file) : NULL;
}

const td_encoder *
tdpg_active_encoder_view(const TdActiveEncoder *active)
{
	if (active->file == NULL)
		tdpg_encoder_raise(&active->fault);
	return tdpg_encoder_view(active->file);
}
