/*
 * td_project.h - how td_model_open.c opens the table that td_project.c applies.
 *
 * Internal: the structure and what is done with it stand in tinydancer.h.
 */
#ifndef TD_PROJECT_H
#define TD_PROJECT_H

#include "tinydancer.h"

/*
 * Find the arrays of a projection whose rank, n_buckets and features are set, and check them.
 *
 * dim  of the vectors beside which the columns stand
 *
 * Returns TD_ERR_CORRUPT for counts that contradict each other, for arrays that are absent or of
 * another length, and for values out of bounds.  A rank of 0 has no arrays.
 */
td_status td_project_open(const td_file *file, size_t dim, td_projection *projection);

#endif
