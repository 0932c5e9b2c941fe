package tun

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"github.com/nsgd/nsgd/tun/steer"
	"github.com/songgao/water"
	"golang.org/x/sys/unix"
)

const (
	tunPath = "/dev/net/tun"

	tsoMask = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	usoMask = tsoMask | unix.TUN_F_USO4 | unix.TUN_F_USO6
)

// kernel holds the calls that an older kernel refuses; tests replace them.
type kernel struct {
	features   func() (uint32, error)          // IFF_ flags that TUNGETFEATURES gives
	setOffload func(fd int, mask uint32) error // TUNSETOFFLOAD
	steer      func(fd, workers int, key uint64) (*steer.Arrivals, error)
}

func runningKernel() kernel {
	return kernel{features: func() (uint32, error) { return tunFeatures(tunPath) }, setOffload: setOffload, steer: steer.Queues}
}

// tunFeatures reads the IFF_ flags of TUNGETFEATURES. It fails when this machine or this user
// can't have a TUN device.
func tunFeatures(path string) (uint32, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
	case unix.ENOENT, unix.ENODEV, unix.ENXIO:
		return 0, fmt.Errorf("%w: %s: %w: load the module with `modprobe tun`, or give the container the device", ErrNoTUN, path, err)
	default:
		return 0, fmt.Errorf("open %s: %w", path, lacks(err, "a device that its user may read and write"))
	}
	defer unix.Close(fd)
	var flags uint32
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNGETFEATURES, uintptr(unsafe.Pointer(&flags)))
	if errno != 0 {
		return 0, fmt.Errorf("%w: %s: TUNGETFEATURES: %w", ErrNoTUN, path, errno)
	}
	return flags, nil
}

// checkAdmin finds a lack of CAP_NET_ADMIN early, before a namespace is made.
func checkAdmin() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	if sets[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return lacks(unix.EPERM, "CAP_NET_ADMIN")
	}
	return nil
}

func setOffload(fd int, mask uint32) error {
	return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, int(mask))
}

// openQueues makes the interface in this thread's namespace, with the highest level that the
// kernel grants.
func (k kernel) openQueues(c Config) ([]Queue, Offload, error) {
	features, err := k.features()
	if err != nil {
		return nil, Off, err
	}
	if c.multiQueue() && features&unix.IFF_MULTI_QUEUE == 0 {
		return nil, Off, fmt.Errorf("%w: the kernel has no multi-queue TUN devices, %d queues were asked for", ErrConfig, c.Queues)
	}
	if c.Offload != Off && features&unix.IFF_VNET_HDR != 0 {
		queues, level, err := k.openOffload(c)
		if err != nil || level != Off {
			return queues, level, err
		}
	}
	queues, err := openPlain(c)
	return queues, Off, err
}

// multiQueue: a kept interface may get another number of queues, but its kind stays.
func (c *Config) multiQueue() bool { return c.Queues > 1 || c.Keep }

// openOffload makes the interface with the virtio-net header. It returns Off and no queue when
// the kernel grants no offload.
func (k kernel) openOffload(c Config) ([]Queue, Offload, error) {
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if c.multiQueue() {
		flags |= unix.IFF_MULTI_QUEUE // the kernel refuses IFF_TUN_EXCL from the second on
	} else {
		flags |= unix.IFF_TUN_EXCL
	}
	var queues []Queue
	for i := range c.Queues {
		fd, err := openQueue(c.Name, flags, i == 0)
		if err != nil {
			return nil, Off, errors.Join(err, closeQueues(queues))
		}
		queues = append(queues, &offloadQueue{descriptor: descriptor{fd: fd}})
	}
	level, err := k.raise(queues, c.Offload.ladder())
	if err != nil || level == Off {
		return nil, Off, errors.Join(err, closeQueues(queues))
	}
	return queues, level, nil
}

// openQueue opens the next queue of an interface, and makes the interface with the first.
func openQueue(name string, flags uint16, first bool) (fd int, err error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	request.SetUint16(flags)
	if fd, err = unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
		return -1, fmt.Errorf("open %s: %w", tunPath, err)
	}
	if err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		err = fmt.Errorf("TUNSETIFF: %w", lacks(err, "CAP_NET_ADMIN"))
	}
	if err == nil && first { // without an owner any user could open another queue
		err = errors.Join(os.NewSyscallError("TUNSETOWNER", unix.IoctlSetInt(fd, unix.TUNSETOWNER, 0)), os.NewSyscallError("TUNSETGROUP", unix.IoctlSetInt(fd, unix.TUNSETGROUP, 0)))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// raise sets the first of levels that the kernel takes. It sets it on every queue: each file has
// features of its own beside the device's.
func (k kernel) raise(queues []Queue, levels []Offload) (Offload, error) {
	for _, level := range levels {
		mask := uint32(0)
		switch level {
		case USO:
			mask = usoMask
		case TSO:
			mask = tsoMask
		}
		var err error
		for _, q := range queues {
			if err = k.setOffload(q.FD(), mask); err != nil {
				break
			}
		}
		if err == nil {
			for _, q := range queues {
				q.(*offloadQueue).level = level
			}
			return level, nil
		}
		if !errors.Is(err, unix.EINVAL) {
			return Off, os.NewSyscallError("TUNSETOFFLOAD", err)
		}
	}
	return Off, nil
}

// openPlain makes the interface without the header. Each further open of a multi-queue device
// gives its next queue.
func openPlain(c Config) ([]Queue, error) {
	config := water.Config{DeviceType: water.TUN}
	config.Name = c.Name
	config.MultiQueue = c.multiQueue()
	// Without an owner any user could open another queue.
	config.Permissions = &water.DevicePermissions{Owner: 0, Group: 0}
	var queues []Queue
	for range c.Queues {
		fd, err := openWater(config)
		if err != nil {
			return nil, errors.Join(err, closeQueues(queues))
		}
		queues = append(queues, &plainQueue{descriptor: descriptor{fd: fd}})
	}
	return queues, nil
}

func openWater(config water.Config) (int, error) {
	// The library opens without O_CLOEXEC: no child may start before the copy that has it.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	device, err := water.New(config)
	if err != nil {
		return -1, fmt.Errorf("TUNSETIFF: %w", lacks(err, "CAP_NET_ADMIN"))
	}
	f, ok := device.ReadWriteCloser.(*os.File)
	if !ok {
		return -1, errors.Join(fmt.Errorf("water: device is a %T, not a file", device.ReadWriteCloser), device.Close())
	}
	return takeOver(f)
}

// takeOver closes f and returns another descriptor of the same open device. It is non-blocking
// like f, and unknown to Go's poller.
func takeOver(f *os.File) (int, error) {
	fd := -1
	raw, err := f.SyscallConn()
	if err == nil {
		var dup error
		err = raw.Control(func(old uintptr) {
			fd, dup = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
		})
		err = errors.Join(err, dup)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return -1, fmt.Errorf("take over %s: %w", tunPath, err)
	}
	return fd, nil
}

func closeQueues(queues []Queue) error {
	var errs []error
	for _, q := range queues {
		switch q := q.(type) {
		case *offloadQueue:
			errs = append(errs, q.close())
		case *plainQueue:
			errs = append(errs, q.close())
		}
	}
	return errors.Join(errs...)
}
