/// The discrete-event core of a run: moves copies through HBM and links, advances time, and wakes cores.
///
/// Cores run ahead of simulated time: what a core does takes effect at its own clock, which is never behind. All effects
/// between cores are events, so the order in which cores run does not matter.
final class SimulationEngine {
    let memory: DeviceMemory
    let topology: SliceTopology
    let deviceCount: Int
    let costs: DeviceCosts
    var semaphores: SemaphoreTable
    let semaphoreNames: [String]
    var cores: [Core] = []
    var failure: DeviceError?
    var timeline: Timeline?
    var links: [LinkServer]
    var memoryServers: [MemoryServer]
    let executor = SimulationExecutor()
    /// What each device's core has released so far: grows with every send and barrier.
    var steps: [UInt32]
    /// known[a·N + b]: the newest step of b that a has heard of.
    var known: [UInt32]

    var events = EventHeap()
    private var copies = CopyTable()
    private var issueQueues: [CopyQueue]
    private var signals: [(device: Int, semaphore: Int, count: Int64)] = []
    private(set) var now: Picoseconds = 0
    /// Cores at the barrier.
    var waitingAtBarrier: [Int] = []
    /// The clock of the last of them.
    var latestAtBarrier: Picoseconds = 0
    private let routes: RouteTable
    /// When each device's HBM is looked at next; -1 for never.
    private var memoryChecks: [Picoseconds]

    init(
        memory: DeviceMemory, topology: SliceTopology, deviceCount: Int, parameters: DeviceParameters,
        semaphoreNames: [String], timeline: Timeline?
    ) {
        self.memory = memory
        self.topology = topology
        self.deviceCount = deviceCount
        self.semaphoreNames = semaphoreNames
        self.timeline = timeline
        costs = DeviceCosts(parameters, deviceCount: deviceCount)
        semaphores = SemaphoreTable(semaphoreCount: semaphoreNames.count, deviceCount: deviceCount)
        routes = RouteTable(topology)
        links = Array(repeating: LinkServer(), count: routes.linkCount)
        memoryServers = (0..<deviceCount).map { [costs] _ in
            MemoryServer(rate: costs.memory, rowRate: costs.rows, isFair: parameters.arbitration == .fair)
        }
        memoryChecks = Array(repeating: -1, count: deviceCount)
        issueQueues = Array(repeating: CopyQueue(), count: deviceCount)
        steps = Array(repeating: 1, count: deviceCount)
        known = Array(repeating: 0, count: deviceCount * deviceCount)
    }

    var eventCount: Int { Int(events.pushed) }

    /// Runs until nothing happens any more.
    func run() {
        executor.drain()
        while let event = events.pop() {
            now = event.time
            let subject = Int(event.subject)
            switch event.kind {
            case .issue: issueNext(device: subject)
            case .linkDeparture: departed(link: subject)
            case .completion: completed(copy: subject)
            case .memory: finishLongCopies(device: subject)
            case .barrier: releaseBarrier()
            case .signal: deliver(signals[subject].semaphore, device: signals[subject].device, signals[subject].count)
            }
            executor.drain()
            if failure != nil { break }
        }
        if failure == nil, let stuck = deadlockReport() { failure = stuck }
        if failure != nil { unwind() }
    }

    /// Wakes every waiting core so that its program ends with the failure.
    private func unwind() {
        for core in cores { core.resume() }
        executor.drain()
    }
}

extension SimulationEngine {
    /// Takes a copy from a core, to leave at `copy.issued`; races were checked.
    func accept(_ copy: Copy) {
        var copy = copy
        if copy.isRemote {
            let route = routes.route(from: copy.sourceDevice, to: copy.targetDevice)
            (copy.nextLink, copy.lastLink) = (route.lowerBound, route.upperBound)
            copy.latency = costs.remoteLatency + costs.hopLatency * Picoseconds(route.count)
            semaphores.state(copy.receivedSemaphore, device: copy.targetDevice).pointee.underWay += copy.bytes
        }
        semaphores.state(copy.sentSemaphore, device: copy.sourceDevice).pointee.underWay += copy.bytes
        let device = copy.sourceDevice
        let number = copies.insert(copy)
        issueQueues[device].append(UInt32(truncatingIfNeeded: number))
        if issueQueues[device].count == 1 { events.push(at: copy.issued, .issue, device) }
    }

    func accept(signal count: Int64, semaphore: Int, device: Int, at time: Picoseconds) {
        semaphores.state(semaphore, device: device).pointee.underWay += count
        signals.append((device, semaphore, count))
        events.push(at: time, .signal, signals.count - 1)
    }

    private func issueNext(device: Int) {
        let number = Int(issueQueues[device].removeFirst())
        if let next = issueQueues[device].first {
            events.push(at: copies.copies[Int(next)].issued, .issue, device)
        }
        let copy = copies.copies + number
        copy.pointee.isRemote ? startRemote(copy, number) : startLocal(copy, number, device)
    }

    private func startRemote(_ copy: UnsafeMutablePointer<Copy>, _ number: Int) {
        if copy.pointee.source.buffer.space == .highBandwidth {
            let read = memoryServers[copy.pointee.sourceDevice].serveFirst(copy.pointee.bytes, at: now)
            copy.pointee.latency += read - now
        }
        enter(copy, number)
    }

    private func startLocal(_ copy: UnsafeMutablePointer<Copy>, _ number: Int, _ device: Int) {
        var charged: Int64 = 0
        if copy.pointee.source.buffer.space == .highBandwidth { charged += copy.pointee.bytes }
        if copy.pointee.target.buffer.space == .highBandwidth { charged += copy.pointee.bytes }
        if charged == 0 {
            events.push(at: now + costs.onChipLatency, .completion, number)
        } else if copy.pointee.source.rowCount == 1, copy.pointee.source.buffer.space == .highBandwidth {
            let done = memoryServers[device].serveRows(charged, at: now)
            events.push(at: done + costs.memoryLatency, .completion, number)
        } else if copy.pointee.hasPriority || charged <= DeviceCosts.longestShortCopy {
            let done = memoryServers[device].serveFirst(charged, at: now)
            events.push(at: done + costs.memoryLatency, .completion, number)
        } else {
            memoryServers[device].add(UInt32(truncatingIfNeeded: number), bytes: charged, at: now)
            scheduleMemory(device)
        }
    }

    private func scheduleMemory(_ device: Int) {
        guard let check = memoryServers[device].nextCheck.map({ max(now, $0) }) else { return }
        if memoryChecks[device] == check { return }
        memoryChecks[device] = check
        events.push(at: check, .memory, device)
    }

    private func finishLongCopies(device: Int) {
        // Each change of the queue makes a new check; those made before it are stale.
        guard memoryChecks[device] == now else { return }
        memoryChecks[device] = -1
        while let number = memoryServers[device].finished(at: now) {
            events.push(at: now + costs.memoryLatency, .completion, Int(number))
        }
        scheduleMemory(device)
    }

    /// Puts a copy on its next link.
    private func enter(_ copy: UnsafeMutablePointer<Copy>, _ number: Int) {
        let link = routes.link(copy.pointee.nextLink)
        copy.pointee.nextLink += 1
        links[link].queue.append(UInt32(truncatingIfNeeded: number))
        if links[link].queue.count == 1 { depart(link, copy.pointee.bytes) }
    }

    private func depart(_ link: Int, _ bytes: Int64) {
        let time = routes.isDieLink(link) ? costs.dieLink.time(bytes) : costs.link.time(bytes) + costs.linkCopyCost
        links[link].busy += time
        links[link].bytes += bytes
        timeline?.add(.link(link), from: now, to: now + time)
        events.push(at: now + time, .linkDeparture, link)
    }

    private func departed(link: Int) {
        let number = Int(links[link].queue.removeFirst())
        if let next = links[link].queue.first { depart(link, copies.copies[Int(next)].bytes) }
        let copy = copies.copies + number
        let isFirst = copy.pointee.nextLink == routes.start(copy.pointee.sourceDevice, copy.pointee.targetDevice) + 1
        if isFirst {
            // From now on the source may be changed, so its bytes go with it. Nobody may look at the target until they
            // have arrived.
            move(copy.pointee)
            deliver(copy.pointee.sentSemaphore, device: copy.pointee.sourceDevice, copy.pointee.bytes)
        }
        guard copy.pointee.nextLink == copy.pointee.lastLink else { return enter(copy, number) }
        var arrival = now
        if copy.pointee.target.buffer.space == .highBandwidth {
            arrival = memoryServers[copy.pointee.targetDevice].serveFirst(copy.pointee.bytes, at: now)
        }
        events.push(at: arrival + copy.pointee.latency, .completion, number)
    }

    private func completed(copy number: Int) {
        let copy = copies.copies[number]
        copies.remove(number)
        timeline?.add(copy, until: now)
        if copy.isRemote {
            deliver(copy.receivedSemaphore, device: copy.targetDevice, copy.bytes)
        } else {
            move(copy)
            deliver(copy.sentSemaphore, device: copy.sourceDevice, copy.bytes)
        }
    }

    private func move(_ copy: Copy) {
        memory.move(copy.source, copy.sourceDevice, copy.target, copy.targetDevice)
    }

    private func deliver(_ semaphore: Int, device: Int, _ count: Int64) {
        let state = semaphores.state(semaphore, device: device)
        state.pointee.value += count
        state.pointee.underWay -= count
        let core = cores[device]
        guard core.waitsFor == semaphore, state.pointee.value >= core.waitedBytes else { return }
        take(core, semaphore, core.waitedBytes)
        core.resume(at: now)
    }

    /// Takes bytes off a semaphore; what its copies touched may be used when nothing else is under way.
    func take(_ core: Core, _ semaphore: Int, _ count: Int64) {
        let state = semaphores.state(semaphore, device: core.device)
        state.pointee.value -= count
        guard state.pointee.value == 0, state.pointee.underWay == 0, state.pointee.firstPending >= 0 else { return }
        settle(core.device, semaphore)
    }
}
