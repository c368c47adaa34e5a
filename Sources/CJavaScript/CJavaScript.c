// Martlet
// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CJavaScript.h"
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

// The functions of JavaScriptCore that are used, each with its type.
#define FUNCTIONS(F) \
    F(JSContextGroupRef, JSContextGroupCreate, (void)) \
    F(void, JSContextGroupRelease, (JSContextGroupRef)) \
    F(void, JSContextGroupSetExecutionTimeLimit, (JSContextGroupRef, double, martlet_js_watchdog, void *)) \
    F(JSGlobalContextRef, JSGlobalContextCreateInGroup, (JSContextGroupRef, void *)) \
    F(void, JSGlobalContextRelease, (JSGlobalContextRef)) \
    F(void, JSGlobalContextSetUnhandledRejectionCallback, (JSGlobalContextRef, JSObjectRef, JSValueRef *)) \
    F(JSObjectRef, JSContextGetGlobalObject, (JSContextRef)) \
    F(void, JSGarbageCollect, (JSContextRef)) \
    F(JSValueRef, JSEvaluateScript, (JSContextRef, JSStringRef, JSObjectRef, JSStringRef, int, JSValueRef *)) \
    F(JSObjectRef, JSObjectMakeFunctionWithCallback, (JSContextRef, JSStringRef, martlet_js_function)) \
    F(JSValueRef, JSObjectCallAsFunction, \
      (JSContextRef, JSObjectRef, JSObjectRef, size_t, const JSValueRef *, JSValueRef *)) \
    F(JSValueRef, JSObjectGetProperty, (JSContextRef, JSObjectRef, JSStringRef, JSValueRef *)) \
    F(void, JSObjectSetProperty, (JSContextRef, JSObjectRef, JSStringRef, JSValueRef, unsigned, JSValueRef *)) \
    F(JSObjectRef, JSObjectMakeError, (JSContextRef, size_t, const JSValueRef *, JSValueRef *)) \
    F(JSObjectRef, JSObjectMakeTypedArray, (JSContextRef, int, size_t, JSValueRef *)) \
    F(void *, JSObjectGetTypedArrayBytesPtr, (JSContextRef, JSObjectRef, JSValueRef *)) \
    F(size_t, JSObjectGetTypedArrayByteLength, (JSContextRef, JSObjectRef, JSValueRef *)) \
    F(size_t, JSObjectGetTypedArrayByteOffset, (JSContextRef, JSObjectRef, JSValueRef *)) \
    F(void *, JSObjectGetArrayBufferBytesPtr, (JSContextRef, JSObjectRef, JSValueRef *)) \
    F(size_t, JSObjectGetArrayBufferByteLength, (JSContextRef, JSObjectRef, JSValueRef *)) \
    F(int, JSValueGetTypedArrayType, (JSContextRef, JSValueRef, JSValueRef *)) \
    F(void, JSValueProtect, (JSContextRef, JSValueRef)) \
    F(void, JSValueUnprotect, (JSContextRef, JSValueRef)) \
    F(JSValueRef, JSValueMakeUndefined, (JSContextRef)) \
    F(JSValueRef, JSValueMakeNull, (JSContextRef)) \
    F(JSValueRef, JSValueMakeBoolean, (JSContextRef, bool)) \
    F(JSValueRef, JSValueMakeNumber, (JSContextRef, double)) \
    F(JSValueRef, JSValueMakeString, (JSContextRef, JSStringRef)) \
    F(JSValueRef, JSBigIntCreateWithUInt64, (JSContextRef, uint64_t, JSValueRef *)) \
    F(int, JSValueGetType, (JSContextRef, JSValueRef)) \
    F(bool, JSValueToBoolean, (JSContextRef, JSValueRef)) \
    F(double, JSValueToNumber, (JSContextRef, JSValueRef, JSValueRef *)) \
    F(uint64_t, JSValueToUInt64, (JSContextRef, JSValueRef, JSValueRef *)) \
    F(JSStringRef, JSValueToStringCopy, (JSContextRef, JSValueRef, JSValueRef *)) \
    F(JSStringRef, JSValueCreateJSONString, (JSContextRef, JSValueRef, unsigned, JSValueRef *)) \
    F(JSStringRef, JSStringCreateWithUTF8CString, (const char *)) \
    F(JSStringRef, JSStringCreateWithCharacters, (const uint16_t *, size_t)) \
    F(size_t, JSStringGetMaximumUTF8CStringSize, (JSStringRef)) \
    F(size_t, JSStringGetUTF8CString, (JSStringRef, char *, size_t)) \
    F(void, JSStringRelease, (JSStringRef))

#define DECLARE(result, name, arguments) static result (*name) arguments;
FUNCTIONS(DECLARE)
static bool (*JSConfigureSignalForGC)(int);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const char *failure;
static _Thread_local void *current;

static void load(void) {
    // How a running script is told to stop: by looking, not by a signal that its thread may never get to.
    setenv("JSC_usePollingTraps", "1", 0);
    // Each virtual user has its functions compiled for itself: the last tier is not worth that, and threads that collect
    // garbage beside the one that makes the load take its processor.
    setenv("JSC_useFTLJIT", "0", 0);
    setenv("JSC_useConcurrentGC", "0", 0);
    // Nobody runs the loop of events in which what was collected is swept by and by: what blocks of dead texts hold is given
    // back where a new text comes into them, and of many not at all.
    setenv("JSC_sweepSynchronously", "1", 0);
    static const char *names[] = {
        "libjavascriptcoregtk-4.1.so.0", "libjavascriptcoregtk-6.0.so.1", "libjavascriptcoregtk-4.0.so.18"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++) library = dlopen(names[i], RTLD_NOW);
    if (!library) { failure = strdup(dlerror()); return; }
#define FIND(result, name, arguments) \
    if (!(name = (result (*) arguments)dlsym(library, #name))) { failure = strdup(dlerror()); return; }
    FUNCTIONS(FIND)
    // It stops threads by a signal for collecting garbage. SIGUSR1, its own choice, is blocked in our threads.
    if ((JSConfigureSignalForGC = (bool (*)(int))dlsym(library, "JSConfigureSignalForGC"))) JSConfigureSignalForGC(SIGPWR);
}

const char *martlet_js_load(void) {
    pthread_once(&once, load);
    return failure;
}

void martlet_js_set_host(void *host) { current = host; }
void *martlet_js_host(void) { return current; }

JSContextGroupRef martlet_js_make_group(void) {
    // Our threads block every signal but faults; this one must reach them.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGPWR);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return JSContextGroupCreate();
}
void martlet_js_release_group(JSContextGroupRef group) { JSContextGroupRelease(group); }
void martlet_js_limit_time(JSContextGroupRef group, double seconds, martlet_js_watchdog watchdog, void *user) {
    JSContextGroupSetExecutionTimeLimit(group, seconds, watchdog, user);
}
JSGlobalContextRef martlet_js_make_context(JSContextGroupRef group) { return JSGlobalContextCreateInGroup(group, NULL); }
void martlet_js_release_context(JSGlobalContextRef context) { JSGlobalContextRelease(context); }
void martlet_js_catch_rejections(JSGlobalContextRef context, JSObjectRef function) {
    JSGlobalContextSetUnhandledRejectionCallback(context, function, NULL);
}
void martlet_js_collect(JSContextRef context) { JSGarbageCollect(context); }

JSValueRef martlet_js_evaluate(JSContextRef context, const char *text, const char *url, JSValueRef *exception) {
    JSStringRef script = JSStringCreateWithUTF8CString(text), name = JSStringCreateWithUTF8CString(url);
    JSValueRef value = JSEvaluateScript(context, script, NULL, name, 1, exception);
    JSStringRelease(script);
    JSStringRelease(name);
    return value;
}
JSObjectRef martlet_js_global(JSContextRef context) { return JSContextGetGlobalObject(context); }
JSObjectRef martlet_js_make_function(JSContextRef context, const char *name, martlet_js_function callback) {
    JSStringRef text = JSStringCreateWithUTF8CString(name);
    JSObjectRef function = JSObjectMakeFunctionWithCallback(context, text, callback);
    JSStringRelease(text);
    return function;
}
JSValueRef martlet_js_call(JSContextRef context, JSObjectRef function, size_t count, const JSValueRef *arguments,
                           JSValueRef *exception) {
    return JSObjectCallAsFunction(context, function, NULL, count, arguments, exception);
}
JSValueRef martlet_js_get(JSContextRef context, JSObjectRef object, const char *name) {
    JSStringRef text = JSStringCreateWithUTF8CString(name);
    JSValueRef value = JSObjectGetProperty(context, object, text, NULL);
    JSStringRelease(text);
    return value;
}
void martlet_js_set(JSContextRef context, JSObjectRef object, const char *name, JSValueRef value) {
    JSStringRef text = JSStringCreateWithUTF8CString(name);
    JSObjectSetProperty(context, object, text, value, 0, NULL);
    JSStringRelease(text);
}
void martlet_js_protect(JSContextRef context, JSValueRef value) { JSValueProtect(context, value); }
void martlet_js_unprotect(JSContextRef context, JSValueRef value) { JSValueUnprotect(context, value); }

JSValueRef martlet_js_undefined(JSContextRef context) { return JSValueMakeUndefined(context); }
JSValueRef martlet_js_null(JSContextRef context) { return JSValueMakeNull(context); }
JSValueRef martlet_js_boolean(JSContextRef context, bool value) { return JSValueMakeBoolean(context, value); }
JSValueRef martlet_js_number(JSContextRef context, double value) { return JSValueMakeNumber(context, value); }
JSValueRef martlet_js_bigint(JSContextRef context, uint64_t value) {
    return JSBigIntCreateWithUInt64(context, value, NULL);
}
JSValueRef martlet_js_text(JSContextRef context, const char *utf8) {
    JSStringRef text = JSStringCreateWithUTF8CString(utf8);
    JSValueRef value = JSValueMakeString(context, text);
    JSStringRelease(text);
    return value;
}
JSValueRef martlet_js_units(JSContextRef context, const uint16_t *units, size_t count) {
    JSStringRef text = JSStringCreateWithCharacters(units, count);
    JSValueRef value = JSValueMakeString(context, text);
    JSStringRelease(text);
    return value;
}
JSValueRef martlet_js_error(JSContextRef context, const char *message) {
    JSValueRef text = martlet_js_text(context, message);
    return JSObjectMakeError(context, 1, &text, NULL);
}
JSValueRef martlet_js_bytes(JSContextRef context, const void *bytes, size_t count) {
    JSObjectRef array = JSObjectMakeTypedArray(context, 3 /* Uint8Array */, count, NULL);
    if (array && count) memcpy(JSObjectGetTypedArrayBytesPtr(context, array, NULL), bytes, count);
    return array;
}

double *martlet_js_numbers(JSContextRef context, size_t count, JSObjectRef *array) {
    *array = JSObjectMakeTypedArray(context, 8 /* Float64Array */, count, NULL);
    if (!*array) abort();
    JSValueProtect(context, *array);
    // Asked for its bytes, an array keeps them where they are.
    return JSObjectGetTypedArrayBytesPtr(context, *array, NULL);
}
uint8_t *martlet_js_octets(JSContextRef context, size_t count, JSObjectRef *array) {
    *array = JSObjectMakeTypedArray(context, 3 /* Uint8Array */, count, NULL);
    if (!*array) abort();
    JSValueProtect(context, *array);
    return JSObjectGetTypedArrayBytesPtr(context, *array, NULL);
}

int martlet_js_type(JSContextRef context, JSValueRef value) { return JSValueGetType(context, value); }
bool martlet_js_truth(JSContextRef context, JSValueRef value) { return JSValueToBoolean(context, value); }
double martlet_js_to_number(JSContextRef context, JSValueRef value) {
    JSValueRef exception = NULL;
    return JSValueToNumber(context, value, &exception);
}
uint64_t martlet_js_to_uint64(JSContextRef context, JSValueRef value) {
    JSValueRef exception = NULL;
    uint64_t number = JSValueToUInt64(context, value, &exception);
    return exception ? 0 : number;
}
JSStringRef martlet_js_to_string(JSContextRef context, JSValueRef value) {
    JSValueRef exception = NULL;
    return JSValueToStringCopy(context, value, &exception);
}
JSStringRef martlet_js_to_json(JSContextRef context, JSValueRef value) {
    JSValueRef exception = NULL;
    return JSValueCreateJSONString(context, value, 0, &exception);
}
size_t martlet_js_string_room(JSStringRef string) { return JSStringGetMaximumUTF8CStringSize(string); }
size_t martlet_js_string_copy(JSStringRef string, char *target, size_t room) {
    return JSStringGetUTF8CString(string, target, room);
}
void martlet_js_string_release(JSStringRef string) { JSStringRelease(string); }
void *martlet_js_view(JSContextRef context, JSValueRef value, size_t *count) {
    JSValueRef exception = NULL;
    int type = JSValueGetTypedArrayType(context, value, &exception);
    JSObjectRef object = (JSObjectRef)value;
    *count = 0;
    // 9: an array buffer; 10: none of them; the rest are typed arrays, 3 of bytes.
    if (exception || type == 10 || type < 0) return NULL;
    if (type == 9) {
        *count = JSObjectGetArrayBufferByteLength(context, object, NULL);
        return JSObjectGetArrayBufferBytesPtr(context, object, NULL);
    }
    if (type > 9) return NULL;
    *count = JSObjectGetTypedArrayByteLength(context, object, NULL);
    char *base = JSObjectGetTypedArrayBytesPtr(context, object, NULL);
    return base ? base + JSObjectGetTypedArrayByteOffset(context, object, NULL) : NULL;
}
