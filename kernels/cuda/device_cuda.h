/* GPUs of this host: how many there are, and opening one. */
#ifndef QVL_KERNELS_CUDA_DEVICE_CUDA_H
#define QVL_KERNELS_CUDA_DEVICE_CUDA_H

#include <stddef.h>

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Number of GPUs that this process can use: 0 without a driver or a device. The first one's name
 * and compute capability, "NVIDIA H100 80GB HBM3, sm_90", go to first_name [n_bytes]. GPUs are
 * numbered by PCI bus id, as nvidia-smi numbers them. Touches no GPU. */
int qvl_cuda_device_count(char *first_name, size_t n_bytes);

/* Where there is no GPU: CUDA's reason, with the version that the driver is for and the one that
 * this build needs, in text [n_bytes]. */
void qvl_cuda_why_no_device(char *text, size_t n_bytes);

/* What tells GPU index from all others, on whatever host: 32 hexadecimal digits. Empty when there
 * is no such GPU. */
void qvl_cuda_device_id(char id[33], int index);

/* Opens GPU index for activations and weights of dtype (F32 or BF16). QVL_EDEVICE when it is not
 * there, too old (compute capability below 8.0) or refuses to work. */
qvl_status qvl_device_open_cuda(qvl_device **out, int index, qvl_dtype dtype, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
