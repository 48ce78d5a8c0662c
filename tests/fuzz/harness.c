/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer and CPython in one process. The extensions are loaded as in production, only built with coverage and
 * sanitizers; what an input means is said in target.py. An exception there is a finding like a fault of memory.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXTRA 4096 /* target.py: FEATURES */

/* libFuzzer takes these for coverage too: what target.py saw from outside, as counters and marks. */
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t extra[EXTRA];

static PyObject *one;

/*
 * place(bytes) -> memoryview of a copy in a block of its own, until the next call. Python's small objects lie side by
 * side in its arenas, where the address sanitizer sees nothing.
 */
static PyObject *place(PyObject *self, PyObject *span)
{
    static char *block;
    Py_ssize_t size = PyBytes_GET_SIZE(span);
    (void)self;
    free(block);
    block = malloc(size ? (size_t)size : 1);
    if (!block)
        abort();
    memcpy(block, PyBytes_AS_STRING(span), (size_t)size);
    return PyMemoryView_FromMemory(block, size, PyBUF_READ);
}

static PyMethodDef methods[] = {{"place", place, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "harness", NULL, -1, methods, NULL, NULL, NULL, NULL};

static PyObject *make_module(void)
{
    return PyModule_Create(&definition);
}

static void fail(void)
{
    PyErr_Print();
    abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    PyConfig config;
    PyObject *module;
    (void)argc;
    (void)argv;
    PyImport_AppendInittab("harness", make_module);
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    /* the virtual environment is found from the program's name */
    if (getenv("FUZZ_PYTHON"))
        PyConfig_SetBytesString(&config, &config.program_name, getenv("FUZZ_PYTHON"));
    if (PyStatus_Exception(Py_InitializeFromConfig(&config)))
        abort();
    PyConfig_Clear(&config);
    if (!PyImport_ImportModule("harness")) /* script.py looks for it among the loaded modules */
        fail();
    module = PyImport_ImportModule("tests.fuzz.target");
    one = module ? PyObject_GetAttrString(module, "one") : NULL;
    if (!one)
        fail();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    PyObject *found = PyObject_CallFunction(one, "y#", (const char *)data, (Py_ssize_t)size);
    PyObject *iterator, *number;
    if (!found)
        fail();
    iterator = PyObject_GetIter(found);
    if (!iterator)
        fail();
    while ((number = PyIter_Next(iterator))) {
        unsigned long n = PyLong_AsUnsignedLong(number);
        if (n < EXTRA)
            extra[n] = 1;
        Py_DECREF(number);
    }
    Py_DECREF(iterator);
    Py_DECREF(found);
    return 0;
}
