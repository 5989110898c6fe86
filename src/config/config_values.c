/* What follows from a configuration. */
#include <math.h>

#include "src/config/config.h"
#include "src/config/config_table.h"

int qvl_config_given_at(const qvl_config *config, const char *key)
{
    const int index = qvl_option_find(key);
    return index >= 0 ? config->given_at[index] : 0;
}

bool qvl_config_is_given(const qvl_config *config, const char *key)
{
    return qvl_config_given_at(config, key) != 0;
}

int64_t qvl_config_lora_alpha(const qvl_config *config)
{
    return config->lora_alpha > 0 ? config->lora_alpha : 2 * config->lora_rank;
}

/* Published examples ask for 5.7 years, which hides every real hang. */
static const double MOST_S = 600.0;

double qvl_config_deadline(const qvl_config *config)
{
    if (config->peer_timeout > 0)
        return config->peer_timeout;
    return config->ddp_timeout < MOST_S ? config->ddp_timeout : MOST_S;
}

const char *qvl_config_deadline_key(const qvl_config *config)
{
    if (config->peer_timeout > 0)
        return "peer_timeout";
    return config->ddp_timeout <= MOST_S ? "ddp_timeout"
                                         : "ddp_timeout (cut; peer_timeout allows more)";
}

double qvl_config_lora_scale(const qvl_config *config)
{
    const double rank = (double)config->lora_rank;
    return (double)qvl_config_lora_alpha(config) / (config->use_rslora ? sqrt(rank) : rank);
}
