/*
 * td_guc.h - the settings of the extension; see td_guc.c for what each does.
 */
#ifndef TD_GUC_H
#define TD_GUC_H

extern char *tdpg_encoder_dir;

/* How often it has been set. */
extern uint64 tdpg_encoder_dir_changes;
extern double tdpg_cost_scale;
extern double tdpg_latency_scale;

/* The td_level to compute with. */
extern uint32 tdpg_kernel_level(void);

extern void tdpg_guc_init(void);

#endif /* TD_GUC_H */
