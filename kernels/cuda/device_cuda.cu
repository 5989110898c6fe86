#include "kernels/cuda/device_cuda.h"

#include <stdio.h>
#include <stdlib.h>

#include <cuda_runtime.h>

// A kernel that does nothing but run: a driver that is older than this build's code finds no image
// for it, and the device then counts as absent.
static __global__ void probe_kernel(void) {}

extern "C" int qvl_cuda_device_count(char *first_name, size_t n_bytes)
{
    int count = 0;
    cudaDeviceProp properties;
    first_name[0] = '\0';
    // Before the first CUDA call; a value set by the user stays.
    setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0);
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0)
        return 0;
    if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess)
        return 0;
    probe_kernel<<<1, 1>>>();
    if (cudaGetLastError() != cudaSuccess || cudaDeviceSynchronize() != cudaSuccess)
        return 0;
    snprintf(first_name, n_bytes, "%s, sm_%d%d", properties.name, properties.major,
             properties.minor);
    return count;
}
