import CLibuv
import Glibc

/// A child process on a `UVLoop`. What it prints goes to this process's standard error, so that standard output stays
/// this process's own. Confined to its loop, which signals and its end assert.
public final class ChildProcess: Closable, @unchecked Sendable {
    /// The child's end of the pipe whose lines `onLine` gets.
    public static let lineDescriptor: Int32 = 3
    /// The child's descriptor of the file it is handed.
    public static let fileDescriptor: Int32 = 4
    /// Bytes of a line; a longer one is passed on in pieces.
    private static let lineBytes = 4096

    /// Process id, 0 after it has ended.
    public private(set) var processID: Int32 = 0

    private let loop: UVLoop
    private var handle: UnsafeMutablePointer<uv_process_t>?
    private var pipe: UnsafeMutablePointer<uv_pipe_t>?
    private var line: [UInt8] = []
    private let onLine: @Sendable (String) -> Void
    private let onExit: @Sendable (_ status: Int64, _ signal: Int32) -> Void

    /// Starts `path` with `arguments` (without the program's name). Called on the loop. Its standard output is dropped
    /// unless `showsOutput`; its environment is this process's unless `environment` replaces it. With `ownSession`, what
    /// is typed at this process's terminal does not reach it. It may read `file` as its descriptor 4, and each line that
    /// it writes to its descriptor 3 goes to `onLine`. `onExit` is called once, after the last line,
    /// with its exit status and the signal that ended it (0 if none), unless the loop stops before.
    ///
    /// - Throws: `LoopError` when the program cannot be started.
    public init(
        _ loop: UVLoop, path: String, arguments: [String], environment: [String: String]? = nil,
        showsOutput: Bool = true, ownSession: Bool = false, file: MemoryFile? = nil,
        onLine: @escaping @Sendable (String) -> Void = { _ in },
        onExit: @escaping @Sendable (_ status: Int64, _ signal: Int32) -> Void
    ) throws(LoopError) {
        self.loop = loop
        self.onLine = onLine
        self.onExit = onExit
        let handle = UnsafeMutablePointer<uv_process_t>.allocate(capacity: 1)
        let pipe = UnsafeMutablePointer<uv_pipe_t>.allocate(capacity: 1)
        uv_pipe_init(loop.handle, pipe, 0)
        pipe.pointee.data = nil
        var strings = ([path] + arguments).map { strdup($0) } + [nil]
        var variables = (environment ?? [:]).sorted { $0.key < $1.key }.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for string in strings + variables { free(string) } }
        var stdio = Self.streams(pipe, file, showsOutput: showsOutput)
        handle.pointee.data = nil
        let status = strings.withUnsafeMutableBufferPointer { arguments in
            variables.withUnsafeMutableBufferPointer { variables in
                stdio.withUnsafeMutableBufferPointer { stdio in
                    path.withCString { path in
                        var options = uv_process_options_t()
                        options.file = path
                        options.args = arguments.baseAddress
                        options.env = environment == nil ? nil : variables.baseAddress
                        options.stdio = stdio.baseAddress
                        options.stdio_count = Int32(stdio.count)
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
            pipe.withMemoryRebound(to: uv_handle_t.self, capacity: 1) { uv_close($0) { $0?.deallocate() } }
            throw LoopError("\(path) cannot be started: \(describeStatus(status))")
        }
        processID = handle.pointee.pid
        self.handle = handle
        handle.pointee.data = Unmanaged.passRetained(self).toOpaque()
        self.pipe = pipe
        pipe.pointee.data = Unmanaged.passRetained(self).toOpaque()
        read(pipe)
    }

    /// Ends this process when the one that started it does, whatever either of them is at. To be called first thing; a
    /// parent that had ended before shows by its process id.
    public static func endWithParent() { _ = linux_signal_at_parents_death(SIGKILL) }

    private static func streams(
        _ pipe: UnsafeMutablePointer<uv_pipe_t>, _ file: MemoryFile?, showsOutput: Bool
    ) -> [uv_stdio_container_t] {
        var stdio = [uv_stdio_container_t](repeating: uv_stdio_container_t(), count: file == nil ? 4 : 5)
        stdio[0].flags = UV_IGNORE
        stdio[1].flags = showsOutput ? UV_INHERIT_FD : UV_IGNORE
        stdio[2].flags = UV_INHERIT_FD
        for descriptor in 1...2 { stdio[descriptor].data.fd = 2 }
        stdio[3].flags = uv_stdio_flags(rawValue: UV_CREATE_PIPE.rawValue | UV_WRITABLE_PIPE.rawValue)
        stdio[3].data.stream = UnsafeMutableRawPointer(pipe).assumingMemoryBound(to: uv_stream_t.self)
        guard let file else { return stdio }
        stdio[4].flags = UV_INHERIT_FD
        stdio[4].data.fd = file.descriptor
        return stdio
    }

    // MARK: Lines

    private func read(_ pipe: UnsafeMutablePointer<uv_pipe_t>) {
        _ = pipe.withMemoryRebound(to: uv_stream_t.self, capacity: 1) { stream in
            uv_read_start(
                stream,
                { handle, _, buffer in
                    guard let data = handle?.pointee.data, let buffer else { return }
                    let child = Unmanaged<ChildProcess>.fromOpaque(data).takeUnretainedValue()
                    buffer.pointee = uv_buf_t(
                        base: child.loop.readBuffer.baseAddress?.assumingMemoryBound(to: CChar.self),
                        len: child.loop.readBuffer.count)
                },
                { handle, count, _ in
                    guard let data = handle?.pointee.data else { return }
                    let child = Unmanaged<ChildProcess>.fromOpaque(data).takeUnretainedValue()
                    child.loop.callback { child.didRead(count) }
                })
        }
    }

    private func didRead(_ count: Int) {
        guard count > 0 else {
            if count < 0 { closePipe() }
            return
        }
        for byte in loop.readBuffer[..<count] {
            if byte == UInt8(ascii: "\n") || line.count == Self.lineBytes { passLine() }
            if byte != UInt8(ascii: "\n") { line.append(byte) }
        }
    }

    private func passLine() {
        let text = String(decoding: line, as: UTF8.self)
        line.removeAll(keepingCapacity: true)
        onLine(text)
    }

    // MARK: End

    private func ended(_ status: Int64, _ signal: Int32) {
        // What it wrote last may not have been read yet.
        readRest()
        closeNow()
        onExit(status, signal)
    }

    private func readRest() {
        guard let pipe else { return }
        var descriptor: uv_os_fd_t = -1
        pipe.withMemoryRebound(to: uv_handle_t.self, capacity: 1) { _ = uv_fileno($0, &descriptor) }
        while descriptor >= 0, case let count = Glibc.read(descriptor, loop.readBuffer.baseAddress, 4096), count > 0 {
            didRead(count)
        }
    }

    /// Lets go of the process, which itself goes on if it still runs.
    func closeNow() {
        loop.assertIsolated()
        closePipe()
        guard let handle else { return }
        self.handle = nil
        processID = 0
        handle.withMemoryRebound(to: uv_handle_t.self, capacity: 1) { uv_close($0, processClosed) }
    }

    private func closePipe() {
        guard let pipe else { return }
        self.pipe = nil
        pipe.withMemoryRebound(to: uv_handle_t.self, capacity: 1) { uv_close($0, processClosed) }
    }

    /// Sends a signal, if the process still runs.
    public func signal(_ number: Int32) {
        loop.assertIsolated()
        if processID != 0 { _ = uv_kill(processID, number) }
    }
}

private func processClosed(_ handle: UnsafeMutablePointer<uv_handle_t>?) {
    guard let handle, let data = handle.pointee.data else { return }
    Unmanaged<ChildProcess>.fromOpaque(data).release()
    handle.deallocate()
}
