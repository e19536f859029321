import CLibuv
import Glibc

/// A child process on a `UVLoop`. What it prints goes to this process's standard error, so that standard output stays
/// this process's own.
public final class ChildProcess: Closable, @unchecked Sendable {
    /// Process id, 0 after it has ended.
    public private(set) var processID: Int32 = 0

    private let loop: UVLoop
    private var handle: UnsafeMutablePointer<uv_process_t>?
    private let onExit: @Sendable (_ status: Int64, _ signal: Int32) -> Void

    /// Starts `path` with `arguments` (without the program's name). Called on the loop. Its standard output is dropped
    /// unless `showsOutput`; its environment is this process's unless `environment` replaces it. With `ownSession`, what
    /// is typed at this process's terminal does not reach it. `onExit` is called once
    /// with its exit status and the signal that ended it (0 if none), unless the loop stops before.
    public init(
        _ loop: UVLoop, path: String, arguments: [String], environment: [String: String]? = nil,
        showsOutput: Bool = true, ownSession: Bool = false,
        onExit: @escaping @Sendable (_ status: Int64, _ signal: Int32) -> Void
    ) throws(LoopError) {
        self.loop = loop
        self.onExit = onExit
        let handle = UnsafeMutablePointer<uv_process_t>.allocate(capacity: 1)
        var strings = ([path] + arguments).map { strdup($0) } + [nil]
        var variables = (environment ?? [:]).sorted { $0.key < $1.key }.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for string in strings + variables { free(string) } }
        var stdio = [uv_stdio_container_t](repeating: uv_stdio_container_t(), count: 3)
        stdio[0].flags = UV_IGNORE
        for descriptor in (showsOutput ? 1 : 2)...2 {
            stdio[descriptor].flags = UV_INHERIT_FD
            stdio[descriptor].data.fd = 2
        }
        handle.pointee.data = nil
        let status = strings.withUnsafeMutableBufferPointer { arguments in
            variables.withUnsafeMutableBufferPointer { variables in
                stdio.withUnsafeMutableBufferPointer { stdio in
                    path.withCString { file in
                        var options = uv_process_options_t()
                        options.file = file
                        options.args = arguments.baseAddress
                        options.env = environment == nil ? nil : variables.baseAddress
                        options.stdio = stdio.baseAddress
                        options.stdio_count = 3
                        options.flags = ownSession ? UV_PROCESS_DETACHED.rawValue : 0
                        options.exit_cb = { handle, status, signal in
                            guard let data = handle?.pointee.data else { return }
                            let child = Unmanaged<ChildProcess>.fromOpaque(data).takeUnretainedValue()
                            child.loop.callback { child.ended(status, signal) }
                        }
                        return uv_spawn(loop.handle, handle, &options)
                    }
                }
            }
        }
        guard status == 0 else {
            handle.withMemoryRebound(to: uv_handle_t.self, capacity: 1) { uv_close($0) { $0?.deallocate() } }
            throw LoopError("\(path) cannot be started: \(describeStatus(status))")
        }
        processID = handle.pointee.pid
        self.handle = handle
        handle.pointee.data = Unmanaged.passRetained(self).toOpaque()
    }

    private func ended(_ status: Int64, _ signal: Int32) {
        closeNow()
        onExit(status, signal)
    }

    /// Lets go of the process, which itself goes on if it still runs.
    func closeNow() {
        guard let handle else { return }
        self.handle = nil
        processID = 0
        handle.withMemoryRebound(to: uv_handle_t.self, capacity: 1) { handle in
            uv_close(handle) { handle in
                guard let handle, let data = handle.pointee.data else { return }
                Unmanaged<ChildProcess>.fromOpaque(data).release()
                handle.deallocate()
            }
        }
    }

    /// Sends a signal, if the process still runs.
    public func signal(_ number: Int32) {
        if processID != 0 { _ = uv_kill(processID, number) }
    }
}
