import CLibEdit
import Foundation
import Glibc
import ServiceSupport
import Synchronization

/// Lines typed at a terminal, with editing and history by libedit. Each is read on a thread of its own; one is read at a
/// time.
final class LineEditor: Sendable {
    /// What came of reading a line.
    enum Entry: Sendable {
        case line(String)
        /// Ctrl-C; true when nothing had been typed.
        case interrupted(wasEmpty: Bool)
        /// Ctrl-D.
        case end
    }

    /// Lines that are remembered.
    private static let historyLines: Int32 = 1000
    /// Bytes of a line that is remembered.
    private static let rememberedBytes = 4096

    private let history: String?
    /// What wakes the reading thread: read and write end.
    private let wake: (read: Int32, write: Int32)

    /// An editor whose lines are remembered in a file, if it can be.
    init(history file: URL?) {
        var ends: [Int32] = [-1, -1]
        _ = pipe(&ends)
        wake = (ends[0], ends[1])
        // Without a locale that knows UTF-8 what is typed beyond ASCII would be lost.
        let locale = setlocale(LC_CTYPE, "").map { String(cString: $0).lowercased() } ?? ""
        if !locale.contains("utf") { setlocale(LC_CTYPE, "C.UTF-8") }
        using_history()
        stifle_history(Self.historyLines)
        history = file.flatMap(Self.prepare)
        if let history { _ = read_history(history) }
    }

    /// `$XDG_STATE_HOME/ironling/history`, or below `~/.local/state`.
    static func historyFile(_ environment: [String: String]) -> URL? {
        let base: String
        if let state = environment["XDG_STATE_HOME"], state.hasPrefix("/") {
            base = state
        } else if let home = environment["HOME"], home.hasPrefix("/") {
            base = home + "/.local/state"
        } else {
            return nil
        }
        return URL(fileURLWithPath: base).appendingPathComponent("ironling/history")
    }

    /// Makes the file, which only its owner may read; nil when it cannot be.
    private static func prepare(_ file: URL) -> String? {
        try? FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700])
        let descriptor = open(file.path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            ServiceProcess.complain(
                "\(file.path): \(String(cString: strerror(errno))); what is typed is not remembered")
            return nil
        }
        close(descriptor)
        return file.path
    }

    /// Reads one line behind `prompt`.
    func read(_ prompt: String) async -> Entry {
        await withCheckedContinuation { continuation in
            Thread.detachNewThread { [self] in continuation.resume(returning: edit(prompt)) }
        }
    }

    /// Ends the reading of a line; from any thread.
    func interrupt() {
        var byte: UInt8 = 1
        _ = write(wake.write, &byte, 1)
    }

    /// Adds a line to the history.
    func remember(_ line: String) {
        guard line.utf8.count <= Self.rememberedBytes else { return }
        add_history(line)
        if let history { _ = write_history(history) }
    }

    private func edit(_ prompt: String) -> Entry {
        typed.withLock { $0 = nil }
        rl_callback_handler_install(prompt) { line in
            let text = line.map { String(cString: $0) }
            free(line)
            typed.withLock { $0 = .some(text) }
        }
        defer { rl_callback_handler_remove() }
        var waits = [
            pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0),
            pollfd(fd: wake.read, events: Int16(POLLIN), revents: 0),
        ]
        // The library's own figure is that of the line before until something is typed.
        var length: Int32 = 0
        while true {
            guard poll(&waits, 2, -1) > 0 else {
                if errno == EINTR { continue }
                return .end
            }
            if waits[1].revents != 0 {
                var byte: UInt8 = 0
                _ = Glibc.read(wake.read, &byte, 1)
                return .interrupted(wasEmpty: length == 0)
            }
            rl_callback_read_char()
            length = edited_length()
            if let line = typed.withLock({ $0 }) { return line.map { .line($0) } ?? .end }
        }
    }
}

/// What the library handed over: nil while a line is edited, an empty inner one at Ctrl-D.
private let typed = Mutex<String??>(nil)
