package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

const callTimeout = 10 * time.Second

// talkByMTLS is a workload: it listens for others, and calls those that it is
// told to. Its SVID and the bundles that it believes in are files, as another
// program has written them, and are read anew for each connection.
func talkByMTLS(_ context.Context, args []string) error {
	flags := flag.NewFlagSet("mtls", flag.ExitOnError)
	folder := flags.String("folder", "", "`FOLDER` with svid.pem, key.pem and bundles/<trust domain>.pem")
	if err := parseRequired(flags, args); err != nil {
		return err
	}
	self := workload{folder: *folder}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.MTLSServerConfig(self, self, tlsconfig.AuthorizeAny()))
	if err != nil {
		return err
	}
	go self.answer(listener)

	return serve(spiffeModule, func(line string) (facts, error) {
		words := strings.Fields(line)
		switch {
		case line == "address":
			return facts{"address": listener.Addr().String()}, nil
		case len(words) == 3 && words[0] == "call":
			return self.call(words[1], words[2])
		default:
			return nil, errors.New("neither address nor call ADDRESS ID")
		}
	})
}

type workload struct{ folder string }

func (w workload) GetX509SVID() (*x509svid.SVID, error) {
	return x509svid.Load(filepath.Join(w.folder, "svid.pem"), filepath.Join(w.folder, "key.pem"))
}

func (w workload) GetX509BundleForTrustDomain(trustDomain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	file := filepath.Join(w.folder, "bundles", trustDomain.Name()+".pem")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no bundle of %s", trustDomain)
	}
	return x509bundle.Load(trustDomain, file)
}

// answer tells each caller who it is.
func (w workload) answer(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer connection.Close()
			_ = connection.SetDeadline(time.Now().Add(callTimeout))
			caller := connection.(*tls.Conn)
			if caller.Handshake() != nil {
				return
			}
			if id, err := x509svid.IDFromCert(caller.ConnectionState().PeerCertificates[0]); err == nil {
				fmt.Fprintln(caller, id)
			}
		}()
	}
}

// call returns who the other one takes this workload for.
func (w workload) call(address, id string) (facts, error) {
	expected, err := spiffeid.FromString(id)
	if err != nil {
		return nil, err
	}
	dialer := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: callTimeout},
		Config:    tlsconfig.MTLSClientConfig(w, w, tlsconfig.AuthorizeID(expected)),
	}
	connection, err := dialer.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(callTimeout))
	caller, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return nil, err
	}
	return facts{"caller": strings.TrimSpace(caller)}, nil
}
