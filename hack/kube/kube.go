// Package kube runs a real Kubernetes API server on this machine's loopback
// address, without Docker, for the demo and the end-to-end tests:
//
//	bins, err := kube.Binaries(ctx, os.Stderr) // built once, then cached
//	cluster, err := kube.Start(ctx, kube.Config{
//		Bins:           bins,
//		Authentication: kube.AuthenticationConfiguration(kube.Issuer{URL: …, Audiences: …}),
//	})
//	defer cluster.Stop()
//	// kubectl --kubeconfig=cluster.AdminKubeconfig get ns
//
// It is etcd and kube-apiserver alone: no nodes, no controllers, so no pods,
// and the aggregated roles view, edit and admin stay empty.
package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Config says which API server to start.
type Config struct {
	Bins Bins
	// Authentication is the text of an AuthenticationConfiguration. Without
	// it, and without Flags, the cluster takes client certificates only.
	Authentication string
	// Flags are passed to kube-apiserver as they are: the old --oidc-* flags
	// go here. They exclude Authentication, and anonymous requests are then
	// refused altogether.
	Flags []string
}

// Cluster is a running API server with its etcd.
type Cluster struct {
	URL             string // https://127.0.0.1:port
	CA              []byte // PEM of the certificate authority of URL
	CAFile          string // the same, in a file
	AdminKubeconfig string // file; a member of system:masters by client certificate

	dir             string
	etcd, apiServer *child
	stop            sync.Once
	stopErr         error
}

// startTimeout is ten times what two cores take.
const startTimeout = time.Minute

// Start returns when /readyz says ok. The context can end the start; the
// cluster itself lives until Stop, or until this process dies (on Linux; on
// other systems a killed process leaves the two servers behind).
//
// A provider should answer before its API server starts: discovery is tried at
// once and then every 10 s, and until then its tokens get a 401.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	if config.Authentication != "" && len(config.Flags) > 0 {
		return nil, errors.New("kube: Authentication and Flags exclude each other")
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		c, err := start(ctx, config)
		// A free port can be taken by another between the question and its use.
		if err == nil || attempt == 3 || !strings.Contains(err.Error(), "address already in use") {
			return c, err
		}
	}
}

func start(ctx context.Context, config Config) (*Cluster, error) {
	dir, err := os.MkdirTemp("", "oidc-device-kube-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir}
	if err := c.start(ctx, config); err != nil {
		return nil, errors.Join(fmt.Errorf("kube: starting the cluster: %w", err), c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, config Config) error {
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	c.URL = "https://127.0.0.1:" + ports[2]
	admin, err := c.writeKeys()
	if err != nil {
		return err
	}
	if err := c.writeAdminKubeconfig(); err != nil {
		return err
	}

	client, peer := "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1]
	c.etcd, err = startChild(c.path("etcd.log"), config.Bins.Etcd,
		"--data-dir", c.path("etcd"),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", "default="+peer,
		"--unsafe-no-fsync", // the data lives as long as this process
	)
	if err != nil {
		return err
	}

	args := []string{
		"--etcd-servers=" + client,
		"--bind-address=127.0.0.1", "--secure-port=" + ports[2],
		"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--tls-cert-file=" + c.path("serving.crt"), "--tls-private-key-file=" + c.path("serving.key"),
		"--client-ca-file=" + c.CAFile,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.path("accounts.key"), "--service-account-signing-key-file=" + c.path("accounts.key"),
		"--service-cluster-ip-range=10.0.0.0/24",
		"--authorization-mode=RBAC",
		"--cert-dir=" + c.path("certs"),
	}
	if len(config.Flags) > 0 {
		args = append(append(args, "--anonymous-auth=false"), config.Flags...)
	} else {
		text := config.Authentication
		if text == "" {
			text = AuthenticationConfiguration()
		}
		if err := os.WriteFile(c.path("authentication.yaml"), []byte(text), 0o600); err != nil {
			return err
		}
		args = append(args, "--authentication-config="+c.path("authentication.yaml"))
	}
	c.apiServer, err = startChild(c.path("kube-apiserver.log"), config.Bins.APIServer, args...)
	if err != nil {
		return err
	}
	return c.waitReady(ctx, admin)
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }

// writeKeys also returns the administrator's client certificate.
func (c *Cluster) writeKeys() (admin tls.Certificate, err error) {
	ca, err := NewCA("oidc-device test cluster")
	if err != nil {
		return admin, err
	}
	c.CA, c.CAFile = ca.PEM, c.path("ca.crt")
	servingCert, servingKey, err := ca.Serving("127.0.0.1", "localhost", "kubernetes.default.svc")
	if err != nil {
		return admin, err
	}
	adminCert, adminKey, err := ca.client("admin", "system:masters")
	if err != nil {
		return admin, err
	}
	accounts, _, err := newKey()
	if err != nil {
		return admin, err
	}
	for name, content := range map[string][]byte{
		"ca.crt":      ca.PEM,
		"serving.crt": servingCert, "serving.key": servingKey,
		"admin.crt": adminCert, "admin.key": adminKey,
		"accounts.key": accounts,
	} {
		if err := os.WriteFile(c.path(name), content, 0o600); err != nil {
			return admin, err
		}
	}
	return tls.X509KeyPair(adminCert, adminKey)
}

// writeAdminKubeconfig writes JSON, which kubectl reads as the YAML it is.
func (c *Cluster) writeAdminKubeconfig() error {
	type object = map[string]any
	text, err := json.MarshalIndent(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "admin",
		"clusters": []object{{"name": "test", "cluster": object{"server": c.URL, "certificate-authority": c.CAFile}}},
		"users": []object{{"name": "admin", "user": object{
			"client-certificate": c.path("admin.crt"), "client-key": c.path("admin.key"),
		}}},
		"contexts": []object{{"name": "admin", "context": object{"cluster": "test", "user": "admin"}}},
	}, "", "  ")
	if err != nil {
		return err
	}
	c.AdminKubeconfig = c.path("admin.kubeconfig")
	return os.WriteFile(c.AdminKubeconfig, text, 0o600)
}

// waitReady asks as the administrator: with the old flags, nobody else may.
func (c *Cluster) waitReady(ctx context.Context, admin tls.Certificate) error {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.CA)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{admin}}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	last := "it did not answer"
	for {
		if response, err := client.Get(c.URL + "/readyz?verbose"); err == nil {
			body, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10)) // only to be shown
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			last = "/readyz: " + response.Status + "\n" + string(body)
		}
		select {
		case <-c.etcd.done:
			return fmt.Errorf("etcd ended: %v\n%s", c.etcd.err, c.etcd.tail())
		case <-c.apiServer.done:
			return fmt.Errorf("kube-apiserver ended: %v\n%s", c.apiServer.err, c.apiServer.tail())
		case <-ctx.Done():
			return fmt.Errorf("%w: %s\nkube-apiserver said:\n%s", context.Cause(ctx), last, c.apiServer.tail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Log is the end of what kube-apiserver wrote.
func (c *Cluster) Log() string { return c.apiServer.tail() }

// Stop kills both servers and removes their folder. It may be called more than
// once.
func (c *Cluster) Stop() error {
	c.stop.Do(func() {
		// Both hard, the API server first: told politely and at once, it waits
		// for an etcd that is gone, and hangs.
		c.apiServer.kill()
		c.etcd.kill()
		c.stopErr = os.RemoveAll(c.dir)
	})
	return c.stopErr
}

// child is a process that writes its output to a file.
type child struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when the process has ended
	err  error         // how; after done
}

func startChild(log, program string, args ...string) (*child, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(program, args...), log: log, done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = out, out
	DieWithParent(c.cmd)
	started := make(chan error)
	go func() {
		defer close(c.done)
		defer out.Close()
		// Linux sends the parent-death signal when the thread ends that
		// started the child (golang.org/issue/27505): keep that thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := c.cmd.Start(); err != nil {
			c.err = err
			started <- err
			return
		}
		started <- nil
		c.err = c.cmd.Wait()
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

func (c *child) kill() {
	if c == nil {
		return
	}
	c.cmd.Process.Kill() // an error means that it has ended already
	<-c.done
}

func (c *child) tail() string {
	if c == nil {
		return ""
	}
	const most = 4 << 10
	b, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	if len(b) > most {
		b = b[len(b)-most:]
		if _, rest, ok := bytes.Cut(b, []byte("\n")); ok {
			b = rest
		}
	}
	return string(b)
}

// freePorts holds all of them until the last is found, so that they differ.
func freePorts(n int) ([]string, error) {
	var ports []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return ports, nil
}
