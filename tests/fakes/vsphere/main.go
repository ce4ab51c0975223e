// A vCenter or an ESXi host for tests: govmomi's simulator, over plain HTTP, and with snapshots
// that change what a disk is backed by, as real ones do. What else a client meets (TLS, sessions,
// /folder) is in proxy.py, which stands in front.
//
// Prints the port it listens on and serves until its standard input ends.
package main

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

func main() {
	esx := flag.Bool("esx", false, "an ESXi host rather than a vCenter")
	user := flag.String("user", "user", "")
	password := flag.String("password", "pass", "")
	folders := flag.Int("folders", 0, "put the datacenter and what is in it into folders: F0/DC0")
	flag.Parse()
	model := simulator.VPX()
	if *esx {
		model = simulator.ESX()
	}
	model.Machine, model.Datastore = 0, 0 // tests make their own
	model.Folder = *folders
	if err := model.Create(); err != nil {
		log.Fatal(err)
	}
	defer model.Remove()
	model.Service.Listen = &url.URL{
		Host: "127.0.0.1:0", User: url.UserPassword(*user, *password),
	}
	server := model.Service.NewServer()
	server.Config.Handler = followSnapshots(fetchNothing(server.Config.Handler))
	fmt.Println(server.URL.Port())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// followSnapshots makes the disks of VMs fit their snapshots after each request that changes those.
// The simulator ends its tasks before it answers, so nobody sees what was before.
func followSnapshots(next http.Handler) http.Handler {
	return http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return
		}
		request.Body = io.NopCloser(bytes.NewReader(body))
		if !bytes.Contains(body, []byte("Snapshot")) {
			next.ServeHTTP(answer, request)
			return
		}
		late := &lateAnswer{header: answer.Header(), status: http.StatusOK}
		next.ServeHTTP(late, request)
		for _, entity := range simulator.Map.All("VirtualMachine") {
			if vm, ok := entity.(*simulator.VirtualMachine); ok {
				simulator.Map.WithLock(vm, func() { fitDisks(vm) })
			}
		}
		answer.WriteHeader(late.status)
		_, _ = answer.Write(late.body.Bytes())
	})
}

// fetchNothing answers for a property that has no value, where the simulator panics.
func fetchNothing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		defer func() {
			if recover() != nil {
				_, _ = io.WriteString(answer, nothing)
			}
		}()
		next.ServeHTTP(answer, request)
	})
}

const nothing = `<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>
<FetchResponse xmlns="urn:vim25"></FetchResponse></soapenv:Body></soapenv:Envelope>
`

// lateAnswer keeps an answer until the disks are as it says.
type lateAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *lateAnswer) Header() http.Header               { return a.header }
func (a *lateAnswer) WriteHeader(status int)            { a.status = status }
func (a *lateAnswer) Write(content []byte) (int, error) { return a.body.Write(content) }

// fitDisks gives each disk as many layers over its base as there are snapshots. Devices are
// replaced, not changed: a snapshot's configuration holds the same ones.
func fitDisks(vm *simulator.VirtualMachine) {
	count := 0
	if vm.Snapshot != nil {
		count = countTree(vm.Snapshot.RootSnapshotList)
	}
	devices := make([]types.BaseVirtualDevice, len(vm.Config.Hardware.Device))
	for i, device := range vm.Config.Hardware.Device {
		devices[i] = device
		if disk, ok := device.(*types.VirtualDisk); ok {
			devices[i] = fitDisk(vm, disk, count)
		}
	}
	simulator.Map.Update(vm, []types.PropertyChange{{Name: "config.hardware.device", Val: devices}})
}

func countTree(trees []types.VirtualMachineSnapshotTree) int {
	count := len(trees)
	for _, tree := range trees {
		count += countTree(tree.ChildSnapshotList)
	}
	return count
}

func fitDisk(vm *simulator.VirtualMachine, disk *types.VirtualDisk, layers int) *types.VirtualDisk {
	top, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if !ok || strings.HasPrefix(top.DiskMode, "independent") {
		return disk // a snapshot leaves it alone
	}
	depth := 0
	for layer := top.Parent; layer != nil; layer = layer.Parent {
		depth++
	}
	for ; depth > layers; depth-- {
		removeLayer(vm, top.FileName)
		top = top.Parent
	}
	for ; depth < layers; depth++ {
		top = addLayer(vm, top, depth+1, disk.CapacityInKB*2)
	}
	changed := *disk
	changed.Backing = top
	return &changed
}

// addLayer puts an empty file of differences over a disk: NAME-000001.vmdk.
func addLayer(
	vm *simulator.VirtualMachine, below *types.VirtualDiskFlatVer2BackingInfo, number int, sectors int64,
) *types.VirtualDiskFlatVer2BackingInfo {
	base := strings.TrimSuffix(below.FileName, ".vmdk")
	if below.Parent != nil {
		base = base[:len(base)-len("-000001")]
	}
	layer := *below
	layer.Parent = below
	layer.FileName = fmt.Sprintf("%s-%06d.vmdk", base, number)
	file := hostPath(vm, layer.FileName)
	delta := strings.TrimSuffix(file, ".vmdk") + "-delta.vmdk"
	write(delta, emptyDelta(sectors))
	write(file, []byte(fmt.Sprintf(descriptor, path.Base(below.FileName), sectors, path.Base(delta))))
	return &layer
}

const descriptor = `# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=fffffffe
parentCID=fffffffe
createType="vmfsSparse"
parentFileNameHint="%s"
# Extent description
RW %d VMFSSPARSE "%s"
`

const (
	entriesPerTable = 4096
	directorySector = 4
)

// emptyDelta is a COWD file without grains (VMware Virtual Disk Format, "ESX Server Sparse Extents").
func emptyDelta(sectors int64) []byte {
	tables := (sectors + entriesPerTable - 1) / entriesPerTable
	end := (directorySector*512 + tables*4 + 511) / 512 * 512
	content := make([]byte, end)
	copy(content, "COWD")
	for i, field := range []uint32{
		1, 3, uint32(sectors), 1, directorySector, uint32(tables), uint32(end / 512),
	} {
		binary.LittleEndian.PutUint32(content[4+4*i:], field)
	}
	return content
}

func removeLayer(vm *simulator.VirtualMachine, name string) {
	file := hostPath(vm, name)
	_ = os.Remove(file)
	_ = os.Remove(strings.TrimSuffix(file, ".vmdk") + "-delta.vmdk")
}

// hostPath is where a file of a datastore ("[datastore1] VM/disk.vmdk") is on this host.
func hostPath(vm *simulator.VirtualMachine, name string) string {
	var place object.DatastorePath
	place.FromString(name)
	host := simulator.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem)
	store := simulator.Map.FindByName(place.Datastore, host.Datastore).(*simulator.Datastore)
	return path.Join(store.Info.GetDatastoreInfo().Url, place.Path)
}

func write(file string, content []byte) {
	if err := os.WriteFile(file, content, 0o600); err != nil {
		log.Fatal(err)
	}
}
