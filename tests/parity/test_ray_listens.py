"""What a local Ray opens to the network."""

import psutil


def test_no_process_of_a_local_ray_listens_beyond_this_machine(ray_local):
    import ray

    @ray.remote
    def work():
        return ray.util.get_node_ip_address()

    assert ray.get(work.remote()) == "127.0.0.1"
    heard = {
        (connection.laddr.ip.removeprefix("::ffff:"), process.name())
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {"gcs_server", "raylet"} <= {name for _, name in heard}
    assert {address for address, _ in heard} <= {"127.0.0.1", "::1"}, heard
