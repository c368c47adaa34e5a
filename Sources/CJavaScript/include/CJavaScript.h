// Martlet: JavaScriptCore's C interface, found when the program runs. No logic.
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// JavaScriptCore's own names for its handles.
typedef const struct OpaqueJSContextGroup *JSContextGroupRef;
typedef const struct OpaqueJSContext *JSContextRef;
typedef struct OpaqueJSContext *JSGlobalContextRef;
typedef struct OpaqueJSString *JSStringRef;
typedef const struct OpaqueJSValue *JSValueRef;
typedef struct OpaqueJSValue *JSObjectRef;

typedef JSValueRef (*martlet_js_function)(JSContextRef context, JSObjectRef function, JSObjectRef self, size_t count,
                                          const JSValueRef *arguments, JSValueRef *exception);
typedef bool (*martlet_js_watchdog)(JSContextRef context, void *user);

// Loads the library, once for the process: NULL, or what dlopen says of the last name that was tried.
const char *martlet_js_load(void);

// What a thread's host functions find: whatever the thread last set.
void martlet_js_set_host(void *host);
void *martlet_js_host(void);

JSContextGroupRef martlet_js_make_group(void);
void martlet_js_release_group(JSContextGroupRef group);
void martlet_js_limit_time(JSContextGroupRef group, double seconds, martlet_js_watchdog watchdog, void *user);
JSGlobalContextRef martlet_js_make_context(JSContextGroupRef group);
void martlet_js_release_context(JSGlobalContextRef context);
void martlet_js_catch_rejections(JSGlobalContextRef context, JSObjectRef function);
void martlet_js_collect(JSContextRef context);

// Evaluates UTF-8 text. NULL with the exception set when it throws.
JSValueRef martlet_js_evaluate(JSContextRef context, const char *text, const char *url, JSValueRef *exception);
JSObjectRef martlet_js_global(JSContextRef context);
JSObjectRef martlet_js_make_function(JSContextRef context, const char *name, martlet_js_function callback);
JSValueRef martlet_js_call(JSContextRef context, JSObjectRef function, size_t count, const JSValueRef *arguments,
                           JSValueRef *exception);
JSValueRef martlet_js_get(JSContextRef context, JSObjectRef object, const char *name);
void martlet_js_set(JSContextRef context, JSObjectRef object, const char *name, JSValueRef value);
void martlet_js_protect(JSContextRef context, JSValueRef value);
void martlet_js_unprotect(JSContextRef context, JSValueRef value);

JSValueRef martlet_js_undefined(JSContextRef context);
JSValueRef martlet_js_null(JSContextRef context);
JSValueRef martlet_js_boolean(JSContextRef context, bool value);
JSValueRef martlet_js_number(JSContextRef context, double value);
JSValueRef martlet_js_bigint(JSContextRef context, uint64_t value);
JSValueRef martlet_js_text(JSContextRef context, const char *utf8);
JSValueRef martlet_js_units(JSContextRef context, const uint16_t *units, size_t count);
JSValueRef martlet_js_error(JSContextRef context, const char *message);
// A Uint8Array with a copy of the bytes.
JSValueRef martlet_js_bytes(JSContextRef context, const void *bytes, size_t count);

// A protected Float64Array, or Uint8Array, of zeros, whose memory stays where it is while it lives.
double *martlet_js_numbers(JSContextRef context, size_t count, JSObjectRef *array);
uint8_t *martlet_js_octets(JSContextRef context, size_t count, JSObjectRef *array);

// 0 undefined, 1 null, 2 boolean, 3 number, 4 string, 5 object, 6 symbol, 7 big integer
int martlet_js_type(JSContextRef context, JSValueRef value);
bool martlet_js_truth(JSContextRef context, JSValueRef value);
double martlet_js_to_number(JSContextRef context, JSValueRef value);
// The value modulo 2^64; 0 for what is no number.
uint64_t martlet_js_to_uint64(JSContextRef context, JSValueRef value);
// The value as a string; NULL when it throws. To be released.
JSStringRef martlet_js_to_string(JSContextRef context, JSValueRef value);
JSStringRef martlet_js_to_json(JSContextRef context, JSValueRef value);
size_t martlet_js_string_room(JSStringRef string);
// Writes UTF-8 with a NUL behind it; how many bytes, the NUL included.
size_t martlet_js_string_copy(JSStringRef string, char *target, size_t room);
void martlet_js_string_release(JSStringRef string);
// The bytes of a typed array or array buffer, or NULL; they live until JavaScript runs again.
void *martlet_js_view(JSContextRef context, JSValueRef value, size_t *count);
