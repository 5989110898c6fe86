/* GPUs of this host, as far as the CPU-only parts of qvl need to know of them. */
#ifndef QVL_KERNELS_CUDA_DEVICE_CUDA_H
#define QVL_KERNELS_CUDA_DEVICE_CUDA_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Number of GPUs that this process can use: 0 without a driver or a device. The first one's name
 * and compute capability, "NVIDIA H100 80GB HBM3, sm_90", go to first_name [n_bytes]. GPUs are
 * numbered by PCI bus id, as nvidia-smi numbers them. */
int qvl_cuda_device_count(char *first_name, size_t n_bytes);

#ifdef __cplusplus
}
#endif
#endif
