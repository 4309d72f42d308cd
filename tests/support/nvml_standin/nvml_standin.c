/* Stands for NVIDIA's management library (libnvidia-ml.so.1) on a machine that has no NVIDIA GPU.
 *
 * The real pynvml loads it and calls it, so everything above the C interface is the real thing. What it
 * answers is read at every call from the text file that the environment variable NVML_STANDIN names, so a
 * test can change memory, take a GPU away or break a call while a process runs:
 *
 *   driver 550.54.14
 *   gpu 0 name="NVIDIA GeForce RTX 4090" uuid=GPU-… total=BYTES free=BYTES compute=8.9
 *         utilization=PERCENT temperature=CELSIUS process=PID:BYTES process=PID:unknown   (all on one line)
 *   fail nvmlDeviceGetMemoryInfo 15        every call of this function answers error 15 (GPU is lost)
 *   fail nvmlDeviceGetMemoryInfo 15 1      only for GPU 1
 *
 * GPUs are numbered from 0 in the order of their lines. A file that is not there is a driver that is not
 * loaded. Structures and error numbers are those of nvml.h.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    GPU_IS_LOST = 15,
};

#define MOST_GPUS 16
#define MOST_PROCESSES 16
#define UNKNOWN UINT64_MAX
#define EVERY_GPU (-1)

typedef struct { unsigned int pid; unsigned long long bytes; unsigned int gpu_instance, compute_instance; } Process;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } Memory2;
typedef struct { unsigned int gpu, memory; } Utilization;

typedef struct {
    char name[96], uuid[96];
    uint64_t total, free, utilization, temperature;
    int major, minor;
    unsigned int processes;
    Process process[MOST_PROCESSES];
} Gpu;

typedef struct { char driver[80]; int count; Gpu gpu[MOST_GPUS]; } State;

static int users;

static void text_value(const char *line, const char *key, char *into, size_t size)
{
    const char *from = strstr(line, key);
    if (!from)
        return;
    from += strlen(key);
    const char *stop = *from == '"' ? "\"\n" : " \n";
    if (*from == '"')
        from++;
    size_t length = strcspn(from, stop);
    snprintf(into, size, "%.*s", (int)length, from);
}

static uint64_t number_value(const char *line, const char *key)
{
    const char *from = strstr(line, key);
    return from ? strtoull(from + strlen(key), NULL, 10) : UNKNOWN;
}

static void read_gpu(const char *line, Gpu *gpu)
{
    memset(gpu, 0, sizeof *gpu);
    text_value(line, " name=", gpu->name, sizeof gpu->name);
    text_value(line, " uuid=", gpu->uuid, sizeof gpu->uuid);
    gpu->total = number_value(line, " total=");
    gpu->free = number_value(line, " free=");
    gpu->utilization = number_value(line, " utilization=");
    gpu->temperature = number_value(line, " temperature=");
    const char *compute = strstr(line, " compute=");
    if (!compute || sscanf(compute, " compute=%d.%d", &gpu->major, &gpu->minor) != 2)
        gpu->major = -1;
    for (const char *at = line; (at = strstr(at, " process=")) && gpu->processes < MOST_PROCESSES; at++) {
        Process *process = &gpu->process[gpu->processes];
        char bytes[32] = "";
        if (sscanf(at, " process=%u:%31s", &process->pid, bytes) != 2)
            continue;
        process->bytes = strcmp(bytes, "unknown") ? strtoull(bytes, NULL, 10) : UNKNOWN;
        process->gpu_instance = process->compute_instance = UINT32_MAX;
        gpu->processes++;
    }
}

/* Reads the state file; answers the error that `function` is to fail with, for this GPU. */
static int look(State *state, const char *function, int gpu)
{
    memset(state, 0, sizeof *state);
    const char *path = getenv("NVML_STANDIN");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file)
        return users > 0 ? GPU_IS_LOST : DRIVER_NOT_LOADED;
    int answer = SUCCESS;
    char line[4096], name[128];
    while (fgets(line, sizeof line, file)) {
        int code, only = EVERY_GPU;
        if (!strncmp(line, "gpu ", 4) && state->count < MOST_GPUS)
            read_gpu(line, &state->gpu[state->count++]);
        else if (!strncmp(line, "driver ", 7))
            text_value(line, "driver ", state->driver, sizeof state->driver);
        else if (sscanf(line, "fail %127s %d %d", name, &code, &only) >= 2 && !strcmp(name, function)
                 && (only == EVERY_GPU || only == gpu))
            answer = code;
    }
    fclose(file);
    return answer;
}

static int begin(State *state, const char *function, int gpu)
{
    return users > 0 ? look(state, function, gpu) : UNINITIALIZED;
}

static int begin_for(State *state, const char *function, void *device, Gpu **gpu)
{
    int index = (int)(intptr_t)device - 1;
    int answer = begin(state, function, index);
    if (answer == SUCCESS && (index < 0 || index >= state->count))
        answer = GPU_IS_LOST;
    if (answer == SUCCESS)
        *gpu = &state->gpu[index];
    return answer;
}

static int give_text(const char *text, char *into, unsigned int size)
{
    if (!*text)
        return NOT_SUPPORTED;
    if (strlen(text) + 1 > size)
        return INSUFFICIENT_SIZE;
    strcpy(into, text);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned int flags)
{
    State state;
    (void)flags;
    int answer = look(&state, "nvmlInitWithFlags", EVERY_GPU);
    if (answer == SUCCESS)
        __atomic_add_fetch(&users, 1, __ATOMIC_SEQ_CST);
    return answer;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void)
{
    if (users == 0)
        return UNINITIALIZED;
    __atomic_sub_fetch(&users, 1, __ATOMIC_SEQ_CST);
    return SUCCESS;
}

const char *nvmlErrorString(int code)
{
    switch (code) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *version, unsigned int size)
{
    State state;
    int answer = begin(&state, "nvmlSystemGetDriverVersion", EVERY_GPU);
    return answer == SUCCESS ? give_text(state.driver, version, size) : answer;
}

int nvmlDeviceGetCount_v2(unsigned int *count)
{
    State state;
    int answer = begin(&state, "nvmlDeviceGetCount_v2", EVERY_GPU);
    if (answer == SUCCESS)
        *count = (unsigned int)state.count;
    return answer;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device)
{
    State state;
    int answer = begin(&state, "nvmlDeviceGetHandleByIndex_v2", (int)index);
    if (answer == SUCCESS && (int)index >= state.count)
        answer = INVALID_ARGUMENT;
    if (answer == SUCCESS)
        *device = (void *)(intptr_t)(index + 1);
    return answer;
}

int nvmlDeviceGetName(void *device, char *name, unsigned int size)
{
    State state;
    Gpu *gpu;
    int answer = begin_for(&state, "nvmlDeviceGetName", device, &gpu);
    return answer == SUCCESS ? give_text(gpu->name, name, size) : answer;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int size)
{
    State state;
    Gpu *gpu;
    int answer = begin_for(&state, "nvmlDeviceGetUUID", device, &gpu);
    return answer == SUCCESS ? give_text(gpu->uuid, uuid, size) : answer;
}

int nvmlDeviceGetMemoryInfo(void *device, Memory *memory)
{
    State state;
    Gpu *gpu;
    int answer = begin_for(&state, "nvmlDeviceGetMemoryInfo", device, &gpu);
    if (answer == SUCCESS && (gpu->total == UNKNOWN || gpu->free == UNKNOWN))
        answer = NOT_SUPPORTED;
    if (answer == SUCCESS)
        *memory = (Memory){gpu->total, gpu->free, gpu->total - gpu->free};
    return answer;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, Memory2 *memory)
{
    Memory plain;
    int answer = nvmlDeviceGetMemoryInfo(device, &plain);
    if (answer == SUCCESS)
        *memory = (Memory2){memory->version, plain.total, 0, plain.free, plain.used};
    return answer;
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor)
{
    State state;
    Gpu *gpu;
    int answer = begin_for(&state, "nvmlDeviceGetCudaComputeCapability", device, &gpu);
    if (answer == SUCCESS && gpu->major < 0)
        answer = NOT_SUPPORTED;
    if (answer == SUCCESS) {
        *major = gpu->major;
        *minor = gpu->minor;
    }
    return answer;
}

int nvmlDeviceGetUtilizationRates(void *device, Utilization *utilization)
{
    State state;
    Gpu *gpu;
    int answer = begin_for(&state, "nvmlDeviceGetUtilizationRates", device, &gpu);
    if (answer == SUCCESS && gpu->utilization == UNKNOWN)
        answer = NOT_SUPPORTED;
    if (answer == SUCCESS)
        *utilization = (Utilization){(unsigned int)gpu->utilization, 0};
    return answer;
}

int nvmlDeviceGetTemperature(void *device, unsigned int sensor, unsigned int *celsius)
{
    State state;
    Gpu *gpu;
    (void)sensor;
    int answer = begin_for(&state, "nvmlDeviceGetTemperature", device, &gpu);
    if (answer == SUCCESS && gpu->temperature == UNKNOWN)
        answer = NOT_SUPPORTED;
    if (answer == SUCCESS)
        *celsius = (unsigned int)gpu->temperature;
    return answer;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count, Process *processes)
{
    State state;
    Gpu *gpu;
    int answer = begin_for(&state, "nvmlDeviceGetComputeRunningProcesses_v3", device, &gpu);
    if (answer != SUCCESS)
        return answer;
    unsigned int room = processes ? *count : 0;
    *count = gpu->processes;
    if (room < gpu->processes)
        return INSUFFICIENT_SIZE;
    if (gpu->processes)
        memcpy(processes, gpu->process, gpu->processes * sizeof *processes);
    return SUCCESS;
}
