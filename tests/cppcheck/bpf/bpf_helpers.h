/* For cppcheck, which does not read the system's headers: the macros that stand where a declaration begins. */
#define SEC(name)
#define __uint(name, value)  int(*name)[value]
#define __type(name, value)  value *name
#define __array(name, value) value *name[]
