package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// listen tells each caller by mTLS who it is, and is not called twice.
func (p *program) listen(ctx context.Context, _ []string) (facts, error) {
	source, err := p.source(ctx)
	if err != nil {
		return nil, err
	}
	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeAny())
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return nil, err
	}
	go answerCallers(listener)
	return facts{"address": listener.Addr().String()}, nil
}

func answerCallers(listener net.Listener) {
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

// call returns who the one at ADDRESS, which must be ID, takes this program for.
func (p *program) call(ctx context.Context, arguments []string) (facts, error) {
	source, err := p.source(ctx)
	if err != nil {
		return nil, err
	}
	expected, err := spiffeid.FromString(arguments[1])
	if err != nil {
		return nil, err
	}
	dialer := tls.Dialer{Config: tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(expected))}
	connection, err := dialer.DialContext(ctx, "tcp", arguments[0])
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
