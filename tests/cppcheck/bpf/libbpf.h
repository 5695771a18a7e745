/* For cppcheck, which does not read the system's headers. */
#define LIBBPF_OPTS(type, name, ...) struct type name = {__VA_ARGS__}
